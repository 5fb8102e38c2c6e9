package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// http2Load is requests over HTTP/2: workers with a connection each, which is
// idle for a moment behind each request.
type http2Load struct {
	httpLoad
	forwarded atomic.Int64
	direct    atomic.Int64
}

// requestingHTTP2 starts a load of requests that servers answer with what
// forwarded says.
func (s *shop) requestingHTTP2(h *testutil.Host, address string, workers int) *http2Load {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &http2Load{httpLoad: httpLoad{host: h, address: address, cancel: cancel}}
	s.Cleanup(func() { cancel(); l.wg.Wait() })
	for worker := range workers {
		c := h2cClient(s, h)
		c.Timeout = 10 * time.Second
		l.wg.Go(func() {
			defer c.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				if err := l.request(c); err != nil {
					l.fail(err)
				}
				if n%perConnection == perConnection-1 {
					c.CloseIdleConnections()
				}
				pause(ctx, time.Duration(worker)*time.Millisecond)
			}
		})
	}
	return l
}

// request posts: what must not be repeated by who cannot know that it was lost.
func (l *http2Load) request(c *http.Client) error {
	r, err := c.Post("http://"+l.address+"/", "text/plain", strings.NewReader("an order"))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return err
	case r.StatusCode != http.StatusOK:
		return fmt.Errorf("%s %s: %q", r.Status, r.Header.Get("X-Connectd-Reason"), body)
	case string(body) == "true":
		l.forwarded.Add(1)
	default:
		l.direct.Add(1)
	}
	l.done.Add(1)
	return nil
}

// reach waits for some more requests that went one of the two ways.
func (l *http2Load) reach(n *node, way *atomic.Int64) {
	n.Helper()
	want := way.Load() + 200
	n.eventually(20*time.Second, func() error {
		if got := way.Load(); got < want {
			return fmt.Errorf("%d of %d requests", got, want)
		}
		return nil
	})
}

// TestHTTP2RestartUnderLoad: a graceful restart loses no request, though a
// client that has a connection does not expect it to end and sends no request a
// second time that may have arrived.
func TestHTTP2RestartUnderLoad(t *testing.T) {
	s := newShop(t)
	for _, name := range []string{"a", "b"} {
		s.servers[name] = s.w.Host(name)
		serveH2C(s.servers[name], forwarded)
	}
	s.begin(service("orders", "appProtocol: http2", "a", "b"))
	l := s.requestingHTTP2(s.web, s.at80("orders"), 8)
	for range 3 {
		l.reach(s.node, &l.forwarded)
		s.daemon.stop()
		l.reach(s.node, &l.direct)
		s.start()
	}
	l.reach(s.node, &l.forwarded)
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	t.Logf("%d requests, %d of them forwarded", l.done.Load(), l.forwarded.Load())
}
