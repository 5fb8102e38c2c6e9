package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counted is a server that knows what it answered.
type counted struct {
	*httptest.Server
	requests, connections atomic.Int64
}

func newCounted(t *testing.T, http2 bool, handler http.HandlerFunc) *counted {
	c := &counted{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		handler(w, r)
	}))
	c.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.connections.Add(1)
		}
	}
	c.Config.Protocols = new(http.Protocols)
	c.Config.Protocols.SetHTTP1(!http2)
	c.Config.Protocols.SetUnencryptedHTTP2(http2)
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func (c *counted) address() string { return c.Listener.Addr().String() }

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") }

// TestHammer: it counts every request once, the ones that warm up apart, over
// as many connections as it says.
func TestHammer(t *testing.T) {
	body := make([]byte, 3*readSize+1)
	long := func(w http.ResponseWriter, _ *http.Request) { w.Write(body[:2*readSize]); w.Write(body[2*readSize:]) }
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		fresh   bool
	}{
		"small":           {hello, false},
		"new connections": {hello, true},
		"long": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "786433")
			long(w, r)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := newCounted(t, false, tc.handler)
			h := hammer{Address: server.address(), Path: "/", Connections: 3, Fresh: tc.fresh, For: 20 * time.Millisecond}
			s, err := h.warm()
			if err != nil {
				t.Fatal(err)
			}
			if got := server.requests.Load(); got != 3 {
				t.Errorf("%d requests to warm up, want 3", got)
			}
			r, err := s.run()
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests < 3 || server.requests.Load() != int64(r.Requests+3) {
				t.Errorf("counted %d requests, the server %d with 3 to warm up", r.Requests, server.requests.Load())
			}
			connections := int64(3)
			if tc.fresh {
				connections = server.requests.Load()
			}
			if got := server.connections.Load(); got != connections {
				t.Errorf("%d connections, want %d", got, connections)
			}
			if r.Took < h.For || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Took {
				t.Errorf("times %+v", r)
			}
		})
	}
}

// TestHammerRefuses: an answer that is not what was asked for ends a load.
func TestHammerRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"503":                {"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503 Busy"},
		"no length":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without a content-length"},
		"too long":           {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "more bytes"},
		"cut":                {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", "closed within"},
		"a head without end": {"HTTP/1.1 200 OK\r\nx: " + strings.Repeat("y", headLimit), "head is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				c.Read(make([]byte, 1<<10))
				io.WriteString(c, tc.answer)
			}()
			h := hammer{Address: ln.Addr().String(), Path: "/", Connections: 1}
			if _, err := h.warm(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// TestHeadInPieces: heads arrive in pieces.
func TestHeadInPieces(t *testing.T) {
	c := &striking{head: make([]byte, 0, headLimit)}
	for piece := range strings.SplitSeq("HTTP/1.1 200 OK\r\nDa|te: x\r\nCONTENT-length:  7 \r|\n\r|\nabc", "|") {
		if c.body {
			t.Fatal("a head ended before its end")
		}
		copy(c.head[len(c.head):cap(c.head)], piece)
		if err := c.headRead(len(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if !c.body || c.left != 4 {
		t.Errorf("read %+v, want 4 bytes left", c)
	}
}

// TestHold: connections do one request each and stay.
func TestHold(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			server := newCounted(t, http2, hello)
			h := hold{Address: server.address(), HTTP2: http2, Count: holdAtOnce + 3}
			held, err := h.run(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := server.requests.Load(); len(held) != h.Count || got != int64(h.Count) || server.connections.Load() != got {
				t.Errorf("%d held, %d requests, %d connections, want %d each", len(held), got, server.connections.Load(), h.Count)
			}
			held[0].SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := held[0].Read(make([]byte, 1)); err == nil || !err.(net.Error).Timeout() {
				t.Errorf("a held connection is not open and quiet: %v", err)
			}
			if held, err = (&hold{}).run(held); held != nil || err != nil {
				t.Errorf("let go: %d left (%v)", len(held), err)
			}
		})
		t.Run(name+", refused", func(t *testing.T) {
			server := newCounted(t, http2, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			h := hold{Address: server.address(), HTTP2: http2, Count: 1}
			held, err := h.run(nil)
			if err == nil {
				t.Error("took a 503 for an answer")
			}
			(&hold{}).run(held)
		})
	}
}
