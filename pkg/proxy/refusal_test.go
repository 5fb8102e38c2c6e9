package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// counts are the refusals so far, zeros left out.
func (w *world) counts() map[string]uint64 {
	out := map[string]uint64{}
	for word, n := range w.p.Stats().Refusals {
		if n > 0 {
			out[word] = n
		}
	}
	return out
}

// asker is a client's connection that stands.
type asker interface {
	// ask sends the request, and returns the status and reason it gets.
	ask() (status int, reason string)
}

type asker1 struct {
	*bareConn
	request string
}

func (a asker1) ask() (int, string) {
	a.send(a.request)
	r, body := a.response("GET")
	word := r.Header.Get("X-Connectd-Reason")
	if !strings.Contains(body, word) {
		a.tb.Errorf("the body is %q, without %q", body, word)
	}
	return r.StatusCode, word
}

type asker2 struct {
	*bareConn
	f      *framed
	fields []string
}

func (a asker2) ask() (int, string) {
	a.f.headers(1, true, a.fields...)
	for {
		fr, err := a.f.ReadFrame()
		if err != nil {
			a.tb.Fatal(err)
		}
		h, ok := fr.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		fields, err := hpack.NewDecoder(4096, nil).DecodeFull(h.HeaderBlockFragment())
		if err != nil {
			a.tb.Fatal(err)
		}
		status, word := 0, ""
		for _, f := range fields {
			switch f.Name {
			case ":status":
				fmt.Sscan(f.Value, &status)
			case "x-connectd-reason":
				word = f.Value
			}
		}
		return status, word
	}
}

// TestReasons holds, for each reason and both protocols, the word that the
// client gets against the one that is counted, and that it is counted once.
func TestReasons(t *testing.T) {
	answers := func(text string) func(lb.AppProtocol) string {
		return func(p lb.AppProtocol) string {
			return raw(t, func(c net.Conn) {
				if p != lb.AppHTTP {
					if f := newFramed(c); f != nil {
						f.WriteSettings()
						if id := f.request(); id != 0 && text != "" {
							f.headers(id, true, ":status", "2")
							f.request()
						}
					}
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, text)
				}
			})
		}
	}
	silent := func(lb.AppProtocol) string {
		return raw(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	}
	nobody := func(lb.AppProtocol) string { return "127.0.0.1:1" }
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct {
		reason   string
		status   int
		endpoint func(lb.AppProtocol) string // nil: there is none
		change   func(w *world, endpoint string)
		http1    string   // "": an ordinary request; "-": does not occur
		http2    []string // the same
	}{
		{reason: reasonNoService, status: 503, change: func(w *world, _ string) { w.p.Publish(&plan.Desired{Tasks: []*plan.Task{w.task}}) }},
		{reason: reasonOutOfScope, status: 403, endpoint: nobody, change: func(w *world, endpoint string) {
			stranger := *w.task
			stranger.Scope = [4]uint64{2}
			w.task = &stranger
			w.publish(endpoint)
		}},
		{reason: reasonNoEndpoint, status: 503},
		{reason: reasonConnect, status: 503, endpoint: nobody},
		{reason: reasonReset, status: 503, endpoint: answers("")},
		{reason: reasonMalformed, status: 502, endpoint: answers("what\r\n\r\n")},
		{reason: reasonTimeout, status: 504, endpoint: silent, change: func(w *world, endpoint string) {
			w.change(func(h *lb.HTTP) { h.RequestTimeout = 50 * time.Millisecond }, endpoint)
		}},
		{reason: reasonBadRequest, status: 400, endpoint: nobody, http1: "GET / HTTP/1.1\r\n\r\n", http2: []string{"-"}},
		{reason: reasonBadRequest, status: 405, endpoint: nobody, http1: "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", http2: []string{":method", "CONNECT", ":authority", "x:1"}},
		{reason: reasonHeadTooLarge, status: 431, endpoint: nobody, http1: "GET / HTTP/1.1\r\nHost: x\r\nLong: " + long + "\r\n\r\n",
			http2: []string{":method", "GET", ":scheme", "http", ":path", "/", "long", strings.Repeat("0", 70<<10)}},
		{reason: reasonBodyFraming, status: 400, endpoint: nobody, http1: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n", http2: []string{"-"}},
		{reason: reasonNoDescriptor, status: 503, endpoint: nobody, change: func(w *world, _ string) { noFiles(w.TB) }},
	} {
		for _, protocol := range []lb.AppProtocol{lb.AppHTTP, lb.AppHTTP2, lb.AppGRPC} {
			if c.http1 == "-" && protocol == lb.AppHTTP || len(c.http2) == 1 && protocol != lb.AppHTTP {
				continue
			}
			t.Run(fmt.Sprint(c.reason, " ", c.status, " ", protocol), func(t *testing.T) {
				var endpoints []string
				endpoint := ""
				if c.endpoint != nil {
					endpoint = c.endpoint(protocol)
					endpoints = []string{endpoint}
				}
				w := newWorld(t, endpoints...)
				w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = protocol, lb.Retry{} }, endpoints...)
				var a asker
				bare := w.dial()
				if protocol == lb.AppHTTP {
					request := c.http1
					if request == "" {
						request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
					}
					a = asker1{bare, request}
				} else {
					bare.send(http2.ClientPreface)
					f := &framed{Framer: http2.NewFramer(bare.Conn, bare.r)}
					f.enc = hpack.NewEncoder(&f.block)
					f.WriteSettings()
					if fr, err := f.ReadFrame(); err != nil || fr.Header().Type != http2.FrameSettings {
						t.Fatalf("greeted with %v (%v)", fr, err)
					}
					fields := c.http2
					if fields == nil {
						fields = []string{":method", "GET", ":scheme", "http", ":path", "/", "content-type", "application/x"}
					}
					if protocol == lb.AppGRPC {
						fields = append(fields[:len(fields):len(fields)], "content-type", "application/grpc")
					}
					a = asker2{bare, f, fields}
				}
				testutil.Eventually(t, 5*time.Second, func() error {
					if w.p.Stats().Clients == 0 {
						return errors.New("not accepted")
					}
					return nil
				})
				for _, l := range w.p.loops {
					l.call(func() {}) // the turn that accepted is over
				}
				if c.change != nil {
					c.change(w, endpoint)
				}
				status, word := a.ask()
				want := c.status
				if protocol == lb.AppGRPC && c.reason != reasonHeadTooLarge {
					want = 200 // a trailers-only response
				}
				if status != want || word != c.reason {
					t.Errorf("got %d with %q, want %d with %q", status, word, want, c.reason)
				}
				if c.reason != reasonNoService { // whose requests they were is not known any more
					counts(t, "requests by class", map[string]uint64{strconv.Itoa(status / 100): 1}, w.answered)
				}
				testutil.Eventually(t, 5*time.Second, func() error { // the client may be faster than the counter
					if got := w.counts(); len(got) != 1 || got[c.reason] != 1 {
						return fmt.Errorf("counted %v, want %s once", got, c.reason)
					}
					return nil
				})
			})
		}
	}
}

// noFiles takes this process's descriptors away until its test has ended.
func noFiles(t testing.TB) {
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	none := had
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
			t.Error(err)
		}
	})
}
