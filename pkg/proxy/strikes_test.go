package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectd/pkg/lb"
)

// run is the length of the run of failures that was reported last, and of the
// longest.
func (w *world) run() (last, longest uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.strikes {
		last, longest = s.Count, max(longest, s.Count)
	}
	return last, longest
}

// Whatever an endpoint does wrong is held against it, be the request tried
// again or not, and the answer to another ends the run.
func TestHeldAgainstEndpoint(t *testing.T) {
	says := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			if strings.Contains(string(b[:n]), " /good ") {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				return
			}
			io.WriteString(c, answer)
		}
	}
	for _, c := range []struct {
		name, method string
		attempts     uint8
		endpoint     func(net.Conn) // nil: nobody listens
		want         uint32         // strikes
	}{
		{"no server, no retry", "GET", 0, nil, 1},
		{"no server, all tries", "GET", 2, nil, 3},
		{"reset, no retry", "GET", 0, says(""), 1},
		{"reset of what cannot be repeated", "POST", 2, says(""), 1},
		{"no HTTP", "GET", 2, says("hello\r\n\r\n"), 1},
		{"no chunk", "GET", 2, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n"), 1},
		{"half a body", "GET", 2, says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"), 1},
		{"a whole one", "GET", 2, says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := "127.0.0.1:1"
			if c.endpoint != nil {
				address = raw(t, c.endpoint)
			}
			w := newWorld(t, address)
			w.change(func(h *lb.HTTP) { h.Retry.Attempts = c.attempts }, address)
			ask := func(path string) {
				req, _ := http.NewRequest(c.method, w.url(path), strings.NewReader("x"))
				r, err := w.client().Do(req)
				if err == nil {
					io.Copy(io.Discard, r.Body)
					r.Body.Close()
				}
			}
			ask("/")
			if last, _ := w.run(); last != c.want {
				t.Fatalf("%d strikes, want %d", last, c.want)
			}
			if c.endpoint == nil || c.want == 0 {
				return
			}
			ask("/good")
			ask("/") // its strike comes after whatever the answer before did
			if last, _ := w.run(); last != c.want {
				t.Errorf("a run of %d after a good answer, want %d", last, c.want)
			}
		})
	}
}

// A request that kills the connection it comes on is made as often as tries
// are allowed, and the first time for nothing: on a connection from a pool it
// looks like one that had been closed. It neither empties the pool nor counts
// for more than the tries that it had.
func TestPoison(t *testing.T) {
	const clients = 32
	for _, protocol := range []lb.AppProtocol{lb.AppHTTP, lb.AppHTTP2} {
		t.Run(protocol.String(), func(t *testing.T) {
			var seen atomic.Int64
			var in sync.WaitGroup
			in.Add(clients)
			all := make(chan struct{})
			handler := func(kill func(http.ResponseWriter)) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/kill" {
						seen.Add(1)
						kill(w)
						return
					}
					in.Done()
					<-all
				}
			}
			var address string
			if protocol == lb.AppHTTP {
				address = serve(t, handler(func(w http.ResponseWriter) {
					c, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					c.Close()
				}))
			} else {
				address = serveH2Conn(t, func(c net.Conn) http.HandlerFunc {
					return handler(func(http.ResponseWriter) { c.Close() })
				})
			}
			w := newWorld(t, address)
			w.change(func(h *lb.HTTP) { h.Protocol = protocol }, address)
			c := w.client()
			if protocol != lb.AppHTTP {
				c = w.h2client()
			}
			var g sync.WaitGroup
			for range clients {
				g.Go(func() {
					r, err := c.Get(w.url("/"))
					if err != nil {
						t.Error(err)
						return
					}
					r.Body.Close()
				})
			}
			in.Wait() // each has a connection, or a stream
			close(all)
			g.Wait()
			r, err := c.Get(w.url("/kill"))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if n := seen.Load(); r.StatusCode != 503 || n != 4 {
				t.Errorf("got %d, and the endpoint saw the request %d times, want 503 and 4", r.StatusCode, n)
			}
			if _, longest := w.run(); longest != 3 {
				t.Errorf("%d strikes for one request, want 3", longest)
			}
		})
	}
}
