package proxy

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
)

// framed is an HTTP/2 server's side of a connection, frame by frame. It has
// read the preface and said nothing yet.
type framed struct {
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

// serveFramed starts a server whose connections are handled by hand.
func serveFramed(tb testing.TB, handle func(f *framed)) string {
	return raw(tb, func(c net.Conn) {
		if f := newFramed(c); f != nil {
			handle(f)
		}
	})
}

// newFramed is nil when the connection ends before its preface.
func newFramed(c net.Conn) *framed {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil
	}
	f := &framed{Framer: http2.NewFramer(c, c)}
	f.enc = hpack.NewEncoder(&f.block)
	return f
}

// request awaits the next request's head; 0 is the connection's end.
func (f *framed) request() uint32 {
	for {
		switch fr, err := f.ReadFrame(); {
		case err != nil:
			return 0
		case fr.Header().Type == http2.FrameHeaders:
			return fr.Header().StreamID
		}
	}
}

// headers writes a field list, "name", "value" in turn.
func (f *framed) headers(id uint32, end bool, fields ...string) {
	f.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	const frame = 16 << 10
	p := f.block.Bytes()
	first := p[:min(len(p), frame)]
	p = p[len(first):]
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(p) == 0, EndStream: end})
	for len(p) > 0 {
		part := p[:min(len(p), frame)]
		p = p[len(part):]
		f.WriteContinuation(id, len(p) == 0, part)
	}
}

// crowd sends n requests at once and returns their statuses.
func crowd(t *testing.T, c *http.Client, method string, n int) map[int]int {
	t.Helper()
	var mu sync.Mutex
	got := map[int]int{}
	var g sync.WaitGroup
	for range n {
		g.Go(func() {
			req, _ := http.NewRequest(method, "http://orders/", strings.NewReader("x"))
			r, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			mu.Lock()
			got[r.StatusCode]++
			mu.Unlock()
		})
	}
	g.Wait()
	return got
}

func (w *world) counted() (retried uint64) {
	w.p.Each(func(s *route.Service) {
		for i := range s.Retries {
			retried += s.Retries[i].Load()
		}
	}, func(*route.Endpoint) {})
	return retried
}

// An endpoint that takes few requests on a connection gets more connections,
// and no request comes to harm by it.
func TestFewStreams(t *testing.T) {
	const requests, limit = 50, 2
	s := &http2.Server{MaxConcurrentStreams: limit}
	var in sync.WaitGroup
	in.Add(requests)
	all := make(chan struct{})
	addr := raw(t, func(c net.Conn) {
		s.ServeConn(c, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			in.Done()
			<-all
		})})
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = lb.AppHTTP2, lb.Retry{} }, addr)
	go func() {
		in.Wait() // all at once
		close(all)
	}()
	if got := crowd(t, w.h2client(), "POST", requests); got[200] != requests {
		t.Errorf("got %v, want 200 only", got)
	}
	if _, longest := w.run(); longest > 0 || w.counted() > 0 {
		t.Errorf("%d strikes and %d retries", longest, w.counted())
	}
}

// A single request does not wait for an endpoint's SETTINGS.
func TestFirstRequestDoesNotWait(t *testing.T) {
	addr := serveFramed(t, func(f *framed) {
		id := f.request()
		f.WriteSettings()
		f.headers(id, true, ":status", "200")
		f.request()
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, addr)
	if got := crowd(t, w.h2client(), "GET", 1); got[200] != 1 {
		t.Errorf("got %v", got)
	}
}

// An endpoint that takes back some of the streams it had granted refuses those
// beyond; they go elsewhere, as if they had not been there.
func TestFewerStreams(t *testing.T) {
	var first sync.Once
	addr := serveFramed(t, func(f *framed) {
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		id := f.request()
		lowers := false
		first.Do(func() { lowers = true })
		if lowers {
			other := f.request()
			f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			f.WriteRSTStream(other, http2.ErrCodeRefusedStream)
		}
		for id != 0 {
			f.headers(id, true, ":status", "200")
			id = f.request()
		}
	})
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = lb.AppHTTP2, lb.Retry{} }, addr)
	if got := crowd(t, w.h2client(), "POST", 2); got[200] != 2 {
		t.Errorf("got %v, want 200 only", got)
	}
	if w.counted() > 0 {
		t.Errorf("%d retries", w.counted())
	}
}

// One that takes none at all is no reason to go on for ever: it costs tries,
// and those who wait for it go to another.
func TestNoStreams(t *testing.T) {
	none := serveFramed(t, func(f *framed) {
		f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		for id := f.request(); id != 0; id = f.request() {
			f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	})
	w := newWorld(t, none)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, none)
	if got := crowd(t, w.h2client(), "POST", 10); got[503] != 10 {
		t.Errorf("got %v, want 503 only", got)
	}
	good := serveH2(t, named("two"))
	w.change(func(h *lb.HTTP) { h.Retry.BudgetPercent = 100 }, none, good)
	if got := crowd(t, w.h2client(), "POST", 10); got[200] != 10 {
		t.Errorf("got %v, want 200 only", got)
	}
}

// Those that wait for a connection that ends before it has taken them are told.
func TestEndsBeforeSettings(t *testing.T) {
	addr := serveFramed(t, func(f *framed) { f.request() })
	w := newWorld(t, addr)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, addr)
	if got := crowd(t, w.h2client(), "POST", 10); got[503] != 10 {
		t.Errorf("got %v, want 503 only", got)
	}
}
