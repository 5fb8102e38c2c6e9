package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

func TestOverdue(t *testing.T) {
	const request, idle = 16 * time.Second, 300 * time.Second
	for _, c := range []struct {
		name              string
		request, idle     time.Duration
		exempt, forClient bool
		quiet             time.Duration
		why               stop
		again             time.Duration
	}{
		{"new", request, idle, false, false, 0, stopNone, request},
		{"new, without limits", 0, 0, false, false, 0, stopNone, 0},
		{"new, idleness alone", 0, idle, false, false, 0, stopNone, idle},
		{"new, exempt", request, idle, true, false, 0, stopNone, idle},
		{"endpoint silent", request, idle, false, false, request, stopDeadline, 0},
		{"endpoint silent since the request's end", request, idle, false, false, 10 * time.Second, stopNone, 6 * time.Second},
		{"not a list for each moment", request, idle, false, false, 9500 * time.Millisecond, stopNone, 8 * time.Second},
		{"endpoint silent, no limit", 0, idle, false, false, idle, stopDeadline, 0},
		{"endpoint silent, exempt", request, idle, true, false, request, stopNone, idle},
		{"endpoint silent for as long as may be, exempt", request, idle, true, false, idle, stopDeadline, 0},
		{"client slow", request, idle, false, true, 2 * request, stopNone, request},
		{"client silent", request, idle, false, true, idle, stopClient, 0},
		{"client silent, which may be", request, 0, false, true, 2 * idle, stopNone, request},
		{"idleness is shorter", request, 8 * time.Second, false, false, 8 * time.Second, stopNone, 8 * time.Second},
	} {
		why, again := overdue(&lb.HTTP{RequestTimeout: c.request, IdleTimeout: c.idle}, c.exempt, c.forClient, c.quiet)
		if why != c.why || again != c.again {
			t.Errorf("%s: %d, again after %s; want %d, %s", c.name, why, again, c.why, c.again)
		}
	}
}

// trickle is a body that comes in parts, each after a time.
func trickle(parts int, every time.Duration) io.Reader {
	r, w := io.Pipe()
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range parts {
			<-tick.C
			if _, err := w.Write([]byte("part")); err != nil {
				return
			}
		}
		w.Close()
	}()
	return r
}

// A slow upload is not late, and its endpoint has done nothing wrong.
func TestSlowUpload(t *testing.T) {
	const limit = 200 * time.Millisecond
	read := func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if string(b) == strings.Repeat("part", 5)+"hang" {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, len(b))
	}
	both(t, func(t *testing.T, protocol lb.AppProtocol) {
		address := serveAs(t, protocol, read)
		w := newWorld(t, address)
		w.change(func(h *lb.HTTP) { h.Protocol, h.RequestTimeout, h.Retry = protocol, limit, lb.Retry{} }, address)
		post := func(body io.Reader) (int, string) {
			r, err := w.speaks(protocol).Post(w.url("/"), "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			return r.StatusCode, string(b)
		}
		if status, body := post(trickle(5, limit)); status != 200 || body != "20" {
			t.Errorf("a slow upload: %d %q", status, body)
		}
		if n, _ := w.run(); n != 0 {
			t.Errorf("%d strikes for it", n)
		}
		// The clock runs from the end of it.
		if status, body := post(io.MultiReader(trickle(5, limit), strings.NewReader("hang"))); status != 504 {
			t.Errorf("no answer to a slow upload: %d %q", status, body)
		}
		if n, _ := w.run(); n != 1 {
			t.Errorf("%d strikes for it, want 1", n)
		}
	})
}

// An endpoint that does not take a request is late; a client that does not send
// the rest of one is idle.
func TestStuckUpload(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	address := raw(t, func(c net.Conn) { <-gate })
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) {
		h.RequestTimeout, h.IdleTimeout, h.Retry = 200*time.Millisecond, 400*time.Millisecond, lb.Retry{}
	}, address)
	c := w.dial()
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 64<<20)
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	if r, _ := c.response("POST"); r == nil || r.StatusCode != 504 {
		t.Errorf("an endpoint that reads nothing: %v", r)
	}
	if n, _ := w.run(); n != 1 {
		t.Errorf("%d strikes for it, want 1", n)
	}
	c = w.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	if r, _ := c.response("POST"); r.StatusCode != 408 || r.Header.Get("X-Connectd-Reason") != reasonSlowBody {
		t.Errorf("a client that says no more: %v", r)
	}
	if err := c.closed(); err != nil {
		t.Errorf("its connection: %v", err)
	}
	if n, _ := w.run(); n != 1 {
		t.Errorf("%d strikes, want none more", n)
	}
}

// The same over HTTP/2.
func TestStuckUploadHTTP2(t *testing.T) {
	address := serveH2(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) {
		h.Protocol, h.RequestTimeout, h.IdleTimeout, h.Retry = lb.AppHTTP2, 100*time.Millisecond, 300*time.Millisecond, lb.Retry{}
	}, address)
	body, more := io.Pipe()
	defer more.Close()
	go more.Write([]byte("hello"))
	r, err := w.h2client().Post(w.url("/"), "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != 408 || r.Header.Get("X-Connectd-Reason") != reasonSlowBody {
		t.Errorf("a client that says no more: %v", r)
	}
	if n, _ := w.run(); n != 0 {
		t.Errorf("%d strikes, want none", n)
	}
	if n := w.p.Stats().Refusals[reasonSlowBody]; n != 1 {
		t.Errorf("%d refusals counted, want 1", n)
	}
}

// An Upgrade that nobody answers ends, too.
func TestSilentUpgrade(t *testing.T) {
	address := raw(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err == nil {
			io.Copy(io.Discard, br) // until it is closed
		}
	})
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) {
		h.RequestTimeout, h.IdleTimeout, h.Retry = 50*time.Millisecond, 300*time.Millisecond, lb.Retry{}
	}, address)
	c := w.dial()
	begun := time.Now()
	c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r, _ := c.response("GET")
	if r == nil || r.StatusCode != 504 {
		t.Errorf("got %v", r)
	}
	if took := time.Since(begun); took < 300*time.Millisecond {
		t.Errorf("ended after %s", took)
	}
	testutil.Eventually(t, 5*time.Second, func() error {
		if n := w.p.Stats().Clients; n > 0 {
			return fmt.Errorf("%d clients", n)
		}
		return nil
	})
}
