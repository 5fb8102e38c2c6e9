package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/h2"
	"connectd/pkg/testutil"
)

// Clients that do not read hold less than the bound, however many streams they
// have, and one that reads gets whole bodies beside them.
func TestHTTP2Holding(t *testing.T) {
	const clients, streams, bodies, size = 20, 100, 20, 1 << 20
	var begun sync.WaitGroup
	begun.Add(clients * streams)
	var sent atomic.Int64 // to those that do not read
	addr := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
		slow := r.URL.Path == "/slow"
		if slow {
			begun.Done()
		}
		b := make([]byte, 16<<10)
		for range size / len(b) {
			n, err := w.Write(b)
			if err != nil {
				return
			}
			if slow {
				sent.Add(int64(n))
			}
		}
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, addr)
	for range clients {
		bare := w.dial()
		bare.send(http2.ClientPreface)
		f := &framed{Framer: http2.NewFramer(bare.Conn, bare.r)}
		f.enc = hpack.NewEncoder(&f.block)
		f.WriteSettings()
		for i := range streams {
			f.headers(uint32(2*i+1), true, ":method", "GET", ":scheme", "http", ":path", "/slow", ":authority", "x")
		}
	}
	begun.Wait()
	held := func() (n int64) {
		for _, l := range w.p.loops {
			l.call(func() { n += l.h2pool.Held() })
		}
		return n
	}
	bound := h2.MaxHolding * int64(len(w.p.loops))
	testutil.Eventually(t, 20*time.Second, func() error { // they hold much
		if n := held(); n < bound/2 && n < clients*streams*(8<<10) {
			return fmt.Errorf("%d bytes are held", n)
		}
		return nil
	})
	c := w.h2client()
	for range bodies {
		r, err := c.Get("http://orders/")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || n != size {
			t.Errorf("a body of %d bytes: %v", n, err)
		}
		r.Body.Close()
		if n := held(); n > bound {
			t.Fatalf("%d bytes are held, more than %d", n, bound)
		}
	}
	t.Logf("%d KiB held, %d KiB written by the endpoint", held()>>10, sent.Load()>>10)
}
