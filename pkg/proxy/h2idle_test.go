package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// After the head a response may be idle for idleTimeout, counted from the head
// and from whatever moves after it. Before it only perRequestTimeout counts.
func TestHTTP2IdleFromHead(t *testing.T) {
	const idle = 400 * time.Millisecond
	for _, late := range []time.Duration{0, idle * 3 / 4, idle * 3 / 2} {
		t.Run(late.String(), func(t *testing.T) {
			heads := make(chan time.Time, 1)
			addr := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(late) // a slow endpoint
				heads <- time.Now()
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
			w := newWorld(t, addr)
			w.change(func(h *lb.HTTP) { h.Protocol, h.IdleTimeout = lb.AppHTTP2, idle }, addr)
			r, err := w.h2client().Get("http://orders/")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(r.Body); err == nil {
				t.Error("the response has an end")
			}
			// The forwarder had the head after it was sent, and the client saw the
			// cut after it was made.
			if quiet := time.Since(<-heads); quiet < idle {
				t.Errorf("cut %v after the head, idleTimeout is %v", quiet, idle)
			}
		})
	}
}

// Bytes either way keep it alive.
func TestHTTP2ActiveEitherWay(t *testing.T) {
	const idle, beats = 400 * time.Millisecond, 12
	beat := func(w io.Writer, flush func()) {
		for range beats {
			time.Sleep(idle / 8)
			io.WriteString(w, "x")
			flush()
		}
	}
	addr := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		if r.Method == "GET" {
			beat(w, w.(http.Flusher).Flush)
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol, h.IdleTimeout = lb.AppHTTP2, idle }, addr)
	for _, method := range []string{"GET", "POST"} {
		body, in := io.Pipe()
		if method == "GET" {
			in.Close()
		} else {
			go func() {
				beat(in, func() {})
				in.Close()
			}()
		}
		req, _ := http.NewRequest(method, "http://orders/", body)
		r, err := w.h2client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != strings.Repeat("x", beats) {
			t.Errorf("%s: got %q (%v)", method, b, err)
		}
	}
}
