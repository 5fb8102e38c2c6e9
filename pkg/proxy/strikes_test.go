package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
	"connectd/pkg/testutil"
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

// A response that breaks off after its head is a strike like any other, unless
// it was the client who broke it off, or a call that its server may end.
func TestHeldAgainstEndpointWithinResponse(t *testing.T) {
	const head = "application/grpc"
	reset := func(code http2.ErrCode) func(*framed, uint32, net.Conn) {
		return func(f *framed, id uint32, _ net.Conn) { f.WriteRSTStream(id, code) }
	}
	lose := func(_ *framed, _ uint32, c net.Conn) { c.Close() }
	wrong := func(f *framed, id uint32, _ net.Conn) { f.headers(id, true, ":status", "200") } // a pseudo field in trailers
	whole := func(f *framed, id uint32, _ net.Conn) {
		f.WriteData(id, true, nil)
		f.WriteRSTStream(id, http2.ErrCodeNo)
	}
	for _, c := range []struct {
		name     string
		protocol lb.AppProtocol
		end      func(f *framed, id uint32, c net.Conn) // nil: it waits for the client to go
		strikes  uint32
	}{
		{"reset", lb.AppHTTP2, reset(http2.ErrCodeInternal), 6},
		{"NO_ERROR before the end", lb.AppHTTP2, reset(http2.ErrCodeNo), 6},
		{"CANCEL", lb.AppHTTP2, reset(http2.ErrCodeCancel), 6},
		{"connection lost", lb.AppHTTP2, lose, 6},
		{"against the protocol", lb.AppHTTP2, wrong, 6},
		{"NO_ERROR after the end", lb.AppHTTP2, whole, 0},
		{"the client goes", lb.AppHTTP2, nil, 0},
		{"call reset", lb.AppGRPC, reset(http2.ErrCodeInternal), 6},
		{"call's connection lost", lb.AppGRPC, lose, 6},
		{"call cancelled", lb.AppGRPC, reset(http2.ErrCodeCancel), 0},
		{"the caller goes", lb.AppGRPC, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := raw(t, func(nc net.Conn) {
				f := newFramed(nc)
				if f == nil {
					return
				}
				f.WriteSettings()
				for id := f.request(); id != 0; id = f.request() {
					f.headers(id, false, ":status", "200", "content-type", head)
					f.WriteData(id, false, []byte("half"))
					if c.end != nil {
						c.end(f, id, nc)
					}
				}
			})
			w := newWorld(t, addr)
			w.change(func(h *lb.HTTP) { h.Protocol = c.protocol }, addr)
			client := w.h2client()
			for range 6 {
				ctx, cancel := context.WithCancel(t.Context())
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://orders/", nil)
				req.Header.Set("content-type", head)
				if c.protocol == lb.AppHTTP2 {
					req.Header.Set("content-type", "text/plain")
				}
				r, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if c.end == nil {
					cancel()
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				cancel()
			}
			// All six are over, and so is what they did.
			testutil.Eventually(t, 5*time.Second, func() error {
				n := uint64(0)
				w.p.Each(func(s *route.Service) { n = s.Classes[2].Load() }, func(*route.Endpoint) {})
				if n != 6 {
					return fmt.Errorf("%d requests are over", n)
				}
				return nil
			})
			if last, _ := w.run(); last != c.strikes {
				t.Errorf("%d strikes in a row, want %d", last, c.strikes)
			}
		})
	}
}

// Connections that the forwarder ends itself are no strikes.
func TestOwnEndIsNoStrike(t *testing.T) {
	addr := serveFramed(t, func(f *framed) {
		f.WriteSettings()
		f.headers(f.request(), false, ":status", "200")
		f.request()
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, addr)
	r, err := w.h2client().Get("http://orders/")
	if err != nil {
		t.Fatal(err)
	}
	if n := w.p.Terminate([]lb.EndpointID{1}); n != 1 {
		t.Errorf("%d connections ended", n)
	}
	if _, err := io.ReadAll(r.Body); err == nil {
		t.Error("the response is whole")
	}
	if _, longest := w.run(); longest > 0 {
		t.Errorf("%d strikes", longest)
	}
}
