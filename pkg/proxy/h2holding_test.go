package proxy

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	w, _ := newH2World(t, func(w http.ResponseWriter, r *http.Request) {
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
	for range clients {
		c := w.dialH2()
		for i := range streams {
			c.request(uint32(2*i+1), "GET", "/slow")
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
