package proxy

import (
	"io"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// newReadyWorld is a forwarder whose listener is where tasks ask whether they
// are ready, and which has no service.
func newReadyWorld(t *testing.T, ready func(lb.TaskID) (bool, string)) *world {
	t.Helper()
	w := newWorld(t)
	w.p.Publish(&plan.Desired{Tasks: []*plan.Task{w.task}})
	w.p.params.Ready, w.p.params.ReadyAt = ready, w.vip
	for _, l := range w.p.loops {
		l.call(func() {}) // from here on they see it
	}
	return w
}

func TestReady(t *testing.T) {
	var ready atomic.Bool
	var why atomic.Pointer[string]
	detail := "prod/orders at 10.0.0.1:80: no probe has succeeded yet"
	w := newReadyWorld(t, func(id lb.TaskID) (bool, string) {
		if id != 1 {
			t.Errorf("asked about task %d", id)
		}
		return ready.Load(), *why.Load()
	})
	why.Store(&detail)
	before := w.p.Stats().Refusals
	c := w.dial() // one connection for all
	ask := func(method, target, more string) (status int, body string) {
		t.Helper()
		c.send(method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + more)
		r, body := c.response(method)
		if r.StatusCode == 405 && r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("405 allows %q", r.Header.Get("Allow"))
		}
		if not := r.Header.Get("X-Connectd-Reason") == reasonNotReady; not != (r.StatusCode == 503) {
			t.Errorf("%d with reason %q", r.StatusCode, r.Header.Get("X-Connectd-Reason"))
		}
		return r.StatusCode, body
	}
	for _, tc := range []struct {
		ready          bool
		method, target string
		status         int
		body           string
	}{
		{false, "GET", "/ready", 503, "not ready: " + detail + "\n"},
		{false, "HEAD", "/ready", 503, ""},
		{true, "GET", "/ready", 200, "ready\n"},
		{true, "GET", "/ready?x=1", 200, "ready\n"},
		{true, "HEAD", "/ready", 200, ""},
		{true, "GET", "/", 404, "connectd: ask for /ready\n"},
		{true, "GET", "/ready/", 404, "connectd: ask for /ready\n"},
		{true, "DELETE", "/ready", 405, "connectd: ask with GET or HEAD\n"},
		{false, "GET", "/ready", 503, "not ready: " + detail + "\n"},
	} {
		ready.Store(tc.ready)
		if status, body := ask(tc.method, tc.target, "\r\n"); status != tc.status || body != tc.body {
			t.Errorf("%s %s, ready %v: %d %q", tc.method, tc.target, tc.ready, status, body)
		}
	}
	long := strings.Repeat("x", 1<<20)
	why.Store(&long)
	if _, body := ask("GET", "/ready", "\r\n"); len(body) > maxReadyDetail+100 {
		t.Errorf("a body of %d bytes", len(body))
	}
	// A body is not waited for, and ends the connection.
	if status, _ := ask("POST", "/ready", "Content-Length: 5\r\n\r\n"); status != 405 {
		t.Errorf("POST: %d", status)
	}
	if err := c.closed(); err != nil {
		t.Error(err)
	}
	if after := w.p.Stats().Refusals; !reflect.DeepEqual(after, before) {
		t.Errorf("counted %v, before %v", after, before)
	}
}

// HTTP/2 is told to come back with HTTP/1.
func TestReadyIsHTTP1(t *testing.T) {
	w := newReadyWorld(t, func(lb.TaskID) (bool, string) { return true, "" })
	c := w.dial()
	c.send(http2.ClientPreface)
	f := http2.NewFramer(io.Discard, c.r)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok {
			if g.ErrCode != http2.ErrCodeHTTP11Required {
				t.Errorf("GOAWAY %s", g.ErrCode)
			}
			return
		}
	}
}

// While the daemon leaves, a client hears that its connection ends.
func TestReadyDraining(t *testing.T) {
	w := newReadyWorld(t, func(lb.TaskID) (bool, string) { return true, "" })
	c := w.dial()
	c.send("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
	c.response("GET")
	w.p.draining.Store(true)
	c.send("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
	if r, _ := c.response("GET"); r.StatusCode != 200 || !r.Close {
		t.Errorf("%d, close %v", r.StatusCode, r.Close)
	}
	if err := c.closed(); err != nil {
		t.Error(err)
	}
}
