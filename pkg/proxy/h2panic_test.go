package proxy

import (
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

// spoil makes the next strike panic: in the midst of whatever is handled then.
func (w *world) spoil() (panicked *atomic.Bool) {
	panicked = new(atomic.Bool)
	for _, l := range w.p.loops {
		l.call(func() {
			w.p.params.Strike = func(lb.Strike) {
				if panicked.CompareAndSwap(false, true) {
					panic("spoiled by the test")
				}
			}
		})
	}
	return panicked
}

// A panic in what an HTTP/2 connection brings costs that connection. The
// requests of others go on, and the daemon does.
func TestHTTP2Panic(t *testing.T) {
	arrived := make(chan net.Conn, 8)
	handler := func(c net.Conn) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/503":
				w.WriteHeader(503)
			case "/wait":
				arrived <- c
				<-r.Context().Done()
			}
		}
	}
	for _, test := range []struct {
		name string
		do   func(t *testing.T, w *world, c *bareH2) (panicked bool)
	}{
		{"a client's request", func(t *testing.T, w *world, c *bareH2) bool {
			for _, l := range w.p.loops {
				l.call(func() {
					for c := range l.clients {
						c.h2.session.User = nil // Request looks at it
					}
				})
			}
			c.request(3, "GET", "/")
			c.lost()
			return true
		}},
		{"an endpoint's answer", func(t *testing.T, w *world, c *bareH2) bool {
			p := w.spoil()
			c.request(3, "GET", "/503") // which would be tried again
			testutil.Eventually(t, 5*time.Second, func() error {
				if !p.Load() {
					return errors.New("no panic")
				}
				return nil
			})
			w.pass(15 * time.Second) // nobody answers it any more
			c.hears("3: 504")
			return true
		}},
		{"a request's timeout", func(t *testing.T, w *world, c *bareH2) bool {
			p := w.spoil()
			c.request(3, "POST", "/wait")
			<-arrived
			w.pass(15 * time.Second)
			c.lost()
			return p.Load()
		}},
		{"the end of an endpoint's connection", func(t *testing.T, w *world, c *bareH2) bool {
			p := w.spoil()
			c.request(3, "POST", "/wait")
			c.request(5, "POST", "/wait")
			<-arrived
			(<-arrived).Close()
			// One of them panicked; the other hears of it, and the one at last.
			first, second := "3: 503", "5: 504"
			if got := c.next(); got == "5: 503" {
				second = "3: 504"
			} else if got != first {
				t.Fatalf("heard %q", got)
			}
			w.pass(15 * time.Second)
			c.hears(second)
			return p.Load()
		}},
		{"a connection that was waited for", func(t *testing.T, w *world, c *bareH2) bool {
			p := w.spoil()
			w.publish("127.0.0.1:1")
			w.p.Terminate([]lb.EndpointID{1})
			c.request(3, "POST", "/")
			c.lost()
			return p.Load()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := serveH2Conn(t, handler)
			w := newWorld(t, endpoint)
			w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = lb.AppHTTP2, lb.Retry{Attempts: 1, BudgetFloor: 100} }, endpoint)
			c, other := w.dialH2(), w.dialH2()
			for _, c := range []*bareH2{c, other} {
				c.request(1, "GET", "/")
				c.hears("1: 200")
			}
			if !test.do(t, w, c) {
				t.Error("nothing panicked: this test shows nothing")
			}
			w.publish(endpoint)
			if test.name != "a client's request" { // which spoiled both
				other.request(3, "GET", "/")
				other.hears("3: 200")
			}
			c = w.dialH2()
			c.request(1, "GET", "/")
			c.hears("1: 200")
		})
	}
}

// lost waits for a reset of the connection.
func (c *bareH2) lost() {
	c.tb.Helper()
	for {
		if f, err := c.fr.ReadFrame(); err != nil {
			return
		} else if _, ok := f.(*http2.MetaHeadersFrame); ok {
			c.tb.Fatalf("heard %v", f)
		}
	}
}
