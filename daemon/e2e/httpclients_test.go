package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"connectd/pkg/testutil"
)

// output runs a program on a host and fails the test when it fails.
func output(tb testing.TB, h *testutil.Host, name string, args ...string) string {
	tb.Helper()
	need(tb, name)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := h.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %s\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// digest answers with the method, protocol and a hash of the body it got.
func digest(w http.ResponseWriter, r *http.Request) {
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
	fmt.Fprintf(w, "%s %d %x\n", r.Method, n, h.Sum(nil))
}

// TestHTTPCurl: what curl does in its many ways.
func TestHTTPCurl(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	s, webs := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	s.at80("orders")
	url := "http://orders.prod/" // by curl's own resolver
	curl := func(args ...string) string {
		t.Helper()
		return output(t, s.web, "curl", append([]string{"-sS", "--max-time", "30"}, args...)...)
	}

	if got := curl(url); got != "a" && got != "b" {
		t.Errorf("GET: %q", got)
	}
	got := curl("-w", " %{num_connects} %{remote_ip}\n", url, url)
	vip := s.vip(s.web, s.dns.Host, "orders.prod").String()
	if got != fmt.Sprintf("a 1 %[1]s\nb 0 %[1]s\n", vip) && got != fmt.Sprintf("b 1 %[1]s\na 0 %[1]s\n", vip) {
		t.Errorf("two URLs, one connection, both servers: %q", got)
	}

	body := make([]byte, 20<<20)
	rand.Read(body)
	file := s.path("body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d %x\n", len(body), sha256.Sum256(body))
	for _, w := range webs {
		w.answer(digest)
	}
	if got := curl("-T", file, url); got != "PUT "+want {
		t.Errorf("upload: %q", got)
	}
	if got := curl("-H", "Transfer-Encoding: chunked", "-T", file, url); got != "PUT "+want {
		t.Errorf("chunked upload: %q", got)
	}
	if got := curl("-v", "-H", "Expect: 100-continue", "--data-binary", "@"+file, url); !strings.Contains(got, "< HTTP/1.1 100 Continue") || !strings.Contains(got, "POST "+want) {
		t.Errorf("Expect: %.2000q", got)
	}

	for _, w := range webs {
		w.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) })
	}
	if got := curl("-H", "Expect: 100-continue", "--expect100-timeout", "20", "-T", file, "-w", "%{http_code} %{size_upload}", url); got != "no\n401 0" {
		t.Errorf("Expect that is refused: %q", got)
	}

	for _, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Method", r.Method)
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush() // chunked from here on
			w.Write(body)
		})
	}
	sum := func(args ...string) string {
		t.Helper()
		out := s.path("out")
		curl(append(args, "-o", out)...)
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %x\n", len(got), sha256.Sum256(got))
	}
	if got := sum(url); got != want {
		t.Errorf("chunked download: %s", got)
	}
	if got := sum("-0", url); got != want {
		t.Errorf("chunked download by HTTP/1.0: %s", got)
	}
	if got := curl("-I", url); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(strings.ToLower(got), "x-method: head\r\n") {
		t.Errorf("HEAD: %q", got)
	}
}

const proxyConfig = `daemon off;
master_process off;
error_log stderr;
pid %[1]s/nginx.pid;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path %[1]s/body.tmp;
    proxy_temp_path %[1]s/proxy.tmp;
    fastcgi_temp_path %[1]s/fastcgi.tmp;
    uwsgi_temp_path %[1]s/uwsgi.tmp;
    scgi_temp_path %[1]s/scgi.tmp;
    resolver %[2]s ipv6=off valid=1s;
    server {
        listen 127.0.0.1:8090;
        client_max_body_size 0;
        set $upstream http://orders.prod;
        location /old { proxy_pass $upstream; }
        location /new { proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; proxy_pass $upstream; }
    }
}
`

// TestHTTPNginx: a proxy that is a client, and resolves by itself.
func TestHTTPNginx(t *testing.T) {
	t.Parallel()
	need(t, "nginx")
	s, webs := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	s.at80("orders")
	s.write("nginx.conf", fmt.Sprintf(proxyConfig, s.dir, s.dns.Addr4()))
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	nginx := s.web.Command(ctx, "nginx", "-p", s.dir, "-e", "stderr", "-c", s.path("nginx.conf"))
	nginx.Stderr = &log
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { nginx.Wait(); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			t.Logf("nginx:\n%s", &log)
		}
	})
	c := httpClient(t, s.web)
	s.eventually(10*time.Second, func() error {
		_, _, err := get(c, "http://127.0.0.1:8090/")
		return err
	})
	for _, path := range []string{"/old", "/new"} {
		got := map[string]int{}
		for range 10 {
			status, body, err := get(c, "http://127.0.0.1:8090"+path)
			if err != nil || status != 200 {
				t.Fatalf("%s: %d %q (%v)", path, status, body, err)
			}
			got[body]++
		}
		if got["a"] != 5 || got["b"] != 5 {
			t.Errorf("%s: 10 requests went %v", path, got)
		}
	}
	for _, w := range webs {
		w.answer(digest)
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 256<<10)
	want := fmt.Sprintf("POST %d %x\n", len(body), sha256.Sum256(body))
	for _, path := range []string{"/old", "/new"} {
		r, err := c.Post("http://127.0.0.1:8090"+path, "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: POST: %q (%v)", path, got, err)
		}
	}
}

// TestHTTPLoadTools: wrk and h2load find no error in some seconds of requests.
func TestHTTPLoadTools(t *testing.T) {
	t.Parallel()
	need(t, "wrk")
	need(t, "h2load")
	s, webs := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	url := "http://" + s.at80("orders") + "/"
	seconds := 3
	if testing.Short() {
		seconds = 1
	}
	served := func() int64 { return webs["a"].requests.Load() + webs["b"].requests.Load() }
	out := output(t, s.web, "wrk", "-t1", "-c16", "-d"+strconv.Itoa(seconds)+"s", url)
	m := regexp.MustCompile(`(\d+) requests in`).FindStringSubmatch(out)
	if m == nil || strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
		t.Fatalf("wrk says:\n%s", out)
	}
	if n, _ := strconv.ParseInt(m[1], 10, 64); n < 100 || served() < n || served() > n+16 { // what was in flight at the end
		t.Errorf("wrk counts %d requests, the servers %d", n, served())
	}
	before := served() // and up to 16 of wrk's may still be on their way
	out = output(t, s.web, "h2load", "--h1", "-n2000", "-c8", "-t1", url)
	if !strings.Contains(out, "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout") || served()-before < 2000 || served()-before > 2016 {
		t.Errorf("the servers count %d, h2load says:\n%s", served()-before, out)
	}
}

// TestHTTPWebSocket: messages go both ways for longer than a request may take.
func TestHTTPWebSocket(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http\ntimeout: {perRequestTimeoutSeconds: 0.2}", "a"))
	address := s.at80("orders")
	webs["a"].answer(websocket.Handler(func(ws *websocket.Conn) {
		for message := ""; websocket.Message.Receive(ws, &message) == nil; {
			websocket.Message.Send(ws, message)
		}
	}).ServeHTTP)
	conn, err := s.web.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	config, err := websocket.NewConfig("ws://orders/echo", "http://orders/")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		message := strings.Repeat(strconv.Itoa(i), 1+i*50_000)
		var got string
		if err := websocket.Message.Send(ws, message); err != nil {
			t.Fatal(err)
		}
		if err := websocket.Message.Receive(ws, &got); err != nil || got != message {
			t.Fatalf("echo of %d bytes: %d bytes, %v", len(message), len(got), err)
		}
		pause(t.Context(), 150*time.Millisecond) // past the request's time
	}
	ws.Close()
}

// TestHTTPServerSentEvents: each event is there before the next one is sent.
func TestHTTPServerSentEvents(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http", "a"))
	seen := make(chan struct{})
	webs["a"].answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 20 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
				return
			}
		}
	})
	r, err := httpClient(t, s.web).Get("http://" + s.at80("orders") + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for i := range 20 {
		if !lines.Scan() || lines.Text() != fmt.Sprint("data: ", i) || !lines.Scan() {
			t.Fatalf("event %d: %q (%v)", i, lines.Text(), lines.Err())
		}
		seen <- struct{}{}
	}
	if lines.Scan() {
		t.Errorf("after the last event: %q", lines.Text())
	}
}
