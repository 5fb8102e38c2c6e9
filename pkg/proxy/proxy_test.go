package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestRequest(t *testing.T) {
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		for k, v := range r.Header {
			w.Header()["Seen-"+k] = v
		}
		w.Header().Set("Seen-Host", r.Host)
		w.Header().Set("Seen-Target", r.RequestURI)
		w.Write(b)
	}))
	c := w.client()
	for range 3 {
		req, _ := http.NewRequest("POST", w.url("/a?b=c"), strings.NewReader("body"))
		req.Host = "orders"
		r, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != 200 || string(b) != "body" {
			t.Errorf("got %d %q", r.StatusCode, b)
		}
		for k, want := range map[string]string{"Seen-Host": "orders", "Seen-Target": "/a?b=c", "Seen-X-Forwarded-For": "127.0.0.1", "Seen-X-Forwarded-Proto": "http"} {
			if got := r.Header.Get(k); got != want {
				t.Errorf("%s is %q, want %q", k, got, want)
			}
		}
		if len(r.Header.Get("Seen-X-Request-Id")) != 36 {
			t.Errorf("request id is %q", r.Header.Get("Seen-X-Request-Id"))
		}
	}
}

// Bodies of any size, both ways, by length and by chunks.
func TestBodies(t *testing.T) {
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", r.Header.Get("Want-Length"))
		}
		w.Write(b)
	}))
	c := w.client()
	for _, size := range []int{0, 1, 8 << 10, 64 << 10, 65 << 10, 300 << 10, 5 << 20} {
		body := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		for _, chunked := range []bool{false, true} {
			var rd io.Reader = bytes.NewReader(body)
			if chunked {
				rd = io.MultiReader(rd) // of unknown length
			}
			r, err := c.Post(w.url("/"), "text/plain", rd)
			if err != nil {
				t.Fatalf("%d bytes, chunked %v: %s", size, chunked, err)
			}
			got, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes, chunked %v: got %d back (%v)", size, chunked, len(got), err)
			}
		}
	}
}

func TestPipelining(t *testing.T) {
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	c := w.dial()
	c.send(strings.Repeat("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: x\r\n\r\n", 20))
	for range 20 {
		for _, want := range []string{"/1", "/2", "/3"} {
			if _, got := c.response("GET"); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	}
}

func TestRetryOn503(t *testing.T) {
	n := 0
	bad := serve(t, func(w http.ResponseWriter, r *http.Request) { n++; w.WriteHeader(503) })
	w := newWorld(t, bad, serve(t, named("good")))
	for range 20 {
		if status, body := w.get("/"); status != 200 || body != "good" {
			t.Fatalf("got %d %q", status, body)
		}
	}
	if n == 0 {
		t.Error("the bad one was never asked")
	}
	c := w.client()
	unavailable := 0
	for range 20 {
		r, err := c.Post(w.url("/"), "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if r.StatusCode == 503 {
			unavailable++
		}
	}
	if unavailable != 10 {
		t.Errorf("%d of 20 POSTs got 503, want 10: they are not to be repeated", unavailable)
	}
}

func TestNoServer(t *testing.T) {
	w := newWorld(t, "127.0.0.1:1")
	if status, body := w.get("/"); status != 503 || !strings.Contains(body, reasonConnect) {
		t.Errorf("got %d %q", status, body)
	}
	w.publish()
	if status, body := w.get("/"); status != 503 || !strings.Contains(body, reasonNoEndpoint) {
		t.Errorf("got %d %q", status, body)
	}
}
