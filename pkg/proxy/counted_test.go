package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
	"connectd/pkg/testutil"
)

// retries are the counts of http_retries_total, those that are 0 left out.
func (w *world) retries() map[string]uint64 {
	out := make(map[string]uint64)
	w.p.Each(func(s *route.Service) {
		for i, word := range route.RetryOutcomes() {
			if n := s.Retries[i].Load(); word == "" && n > 0 {
				w.Errorf("%d of outcome %d, which has no word", n, i)
			} else if n > 0 {
				out[word] += n
			}
		}
	}, func(*route.Endpoint) {})
	return out
}

// classes are the counts of tries by the first digit of their status, those
// that are 0 left out.
func (w *world) classes() map[string]uint64 {
	out := make(map[string]uint64)
	w.p.Each(func(*route.Service) {}, func(e *route.Endpoint) { byClass(out, &e.Counters) })
	return out
}

// answered are the counts of requests in the same way.
func (w *world) answered() map[string]uint64 {
	out := make(map[string]uint64)
	w.p.Each(func(s *route.Service) { byClass(out, &s.Counters) }, func(*route.Endpoint) {})
	return out
}

func byClass(out map[string]uint64, c *route.Counters) {
	for class := range c.Classes {
		if n := c.Classes[class].Load(); n > 0 {
			out[strconv.Itoa(class)] += n
		}
	}
}

// refusals are the counts of forwarder_refusals_total, those that are 0 left
// out.
func (w *world) refusals() map[string]uint64 {
	out := w.p.Stats().Refusals
	maps.DeleteFunc(out, func(_ string, n uint64) bool { return n == 0 })
	return out
}

// counts waits until they are as wanted: an answer is counted when it has been
// sent.
func counts(tb testing.TB, what string, want map[string]uint64, get func() map[string]uint64) {
	tb.Helper()
	testutil.Eventually(tb, 5*time.Second, func() error {
		if got := get(); !maps.Equal(got, want) {
			return fmt.Errorf("%s are %v, want %v", what, got, want)
		}
		return nil
	})
}

func both(t *testing.T, test func(*testing.T, lb.AppProtocol)) {
	for _, protocol := range []lb.AppProtocol{lb.AppHTTP, lb.AppHTTP2} {
		t.Run(protocol.String(), func(t *testing.T) { test(t, protocol) })
	}
}

func (w *world) speaks(protocol lb.AppProtocol) *http.Client {
	if protocol == lb.AppHTTP {
		return w.client()
	}
	return w.h2client()
}

func serveAs(tb testing.TB, protocol lb.AppProtocol, h http.HandlerFunc) string {
	tb.Helper()
	if protocol == lb.AppHTTP {
		return serve(tb, h)
	}
	return serveH2(tb, h)
}

// Each request that was tried again, or not though a try failed, is counted
// once under what became of it, whichever way it came.
func TestRetriesAreCounted(t *testing.T) {
	budget := lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 100}
	broke, once := lb.Retry{Attempts: 2}, budget
	once.Attempts = 0
	everything := budget
	everything.AllMethods = true
	cut := func(http.ResponseWriter, int) { panic(http.ErrAbortHandler) }
	status := func(codes ...int) func(http.ResponseWriter, int) {
		return func(w http.ResponseWriter, try int) {
			w.WriteHeader(codes[min(try, len(codes)-1)])
		}
	}
	part := func(w http.ResponseWriter, try int) {
		io.WriteString(w, "half of")
		w.(http.Flusher).Flush()
		cut(w, try)
	}
	hints := func(w http.ResponseWriter, _ int) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(503)
	}
	for _, tc := range []struct {
		name     string
		retry    lb.Retry
		method   string
		body     int
		endpoint func(w http.ResponseWriter, try int) // nil: nobody listens
		status   int                                  // that the client gets
		tries    int64                                // that the endpoint saw
		want     string                               // outcomes, each of one request
		classes  string                               // class:tries, of the endpoint
	}{
		{"nothing failed", budget, "GET", 0, status(200), 200, 1, "", "2:1"},
		{"500", budget, "GET", 0, status(500), 500, 1, "", "5:1"},
		{"503, then 200", budget, "GET", 0, status(503, 200), 200, 2, "success", "2:1 5:1"},
		{"503, 503, 200", budget, "GET", 0, status(503, 503, 200), 200, 3, "success", "2:1 5:2"},
		{"503, then 404", budget, "GET", 0, status(503, 404), 404, 2, "success", "4:1 5:1"},
		{"503, then 500", budget, "GET", 0, status(503, 500), 500, 2, "failure", "5:2"},
		{"503 to the last", budget, "GET", 0, status(503), 503, 3, "failure no_attempts", "5:3"},
		{"503, no attempts", once, "GET", 0, status(503), 503, 1, "no_attempts", "5:1"},
		{"503, no budget", broke, "GET", 0, status(503), 503, 1, "no_budget", "5:1"},
		{"503 to POST", budget, "POST", 10, status(503), 503, 1, "not_idempotent", "5:1"},
		{"503 to POST, methods: all", everything, "POST", 10, status(503, 200), 200, 2, "success", "2:1 5:1"},
		{"503 to a large body", budget, "PUT", 1 << 20, status(503), 503, 1, "body_too_large", "5:1"},
		{"503 after early hints", budget, "GET", 0, hints, 503, 3, "failure no_attempts", "5:3"},
		{"cut within the body", budget, "GET", 0, part, 200, 1, "response_started", "2:1"},
		{"cut to the last", budget, "GET", 0, cut, 503, 3, "failure no_attempts", "0:3"},
		{"cut, no attempts", once, "GET", 0, cut, 503, 1, "no_attempts", "0:1"},
		{"cut, no budget", broke, "GET", 0, cut, 503, 1, "no_budget", "0:1"},
		{"cut to POST", budget, "POST", 10, cut, 503, 1, "not_idempotent", "0:1"},
		{"nobody listens", budget, "GET", 0, nil, 503, 0, "failure no_attempts", "0:3"},
		{"nobody listens to POST", budget, "POST", 10, nil, 503, 0, "failure no_attempts", "0:3"},
		{"nobody listens, no attempts", once, "GET", 0, nil, 503, 0, "no_attempts", "0:1"},
		{"nobody listens, no budget", broke, "GET", 0, nil, 503, 0, "no_budget", "0:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			both(t, func(t *testing.T, protocol lb.AppProtocol) {
				var tries atomic.Int64
				address := "127.0.0.1:1"
				if tc.endpoint != nil {
					address = serveAs(t, protocol, func(w http.ResponseWriter, r *http.Request) {
						try := int(tries.Add(1)) - 1
						io.Copy(io.Discard, r.Body)
						tc.endpoint(w, try)
					})
				}
				w := newWorld(t, address)
				w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = protocol, tc.retry }, address)
				req, err := http.NewRequestWithContext(t.Context(), tc.method, w.url("/"), strings.NewReader(strings.Repeat("x", tc.body)))
				if err != nil {
					t.Fatal(err)
				}
				r, err := w.speaks(protocol).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if n := tries.Load(); r.StatusCode != tc.status || n != tc.tries {
					t.Errorf("got %d after %d tries, want %d after %d", r.StatusCode, n, tc.status, tc.tries)
				}
				want := make(map[string]uint64)
				for _, word := range strings.Fields(tc.want) {
					want[word] = 1
				}
				classes := make(map[string]uint64)
				for _, c := range strings.Fields(tc.classes) {
					class, n, _ := strings.Cut(c, ":")
					classes[class], _ = strconv.ParseUint(n, 10, 64)
				}
				// The class of the answer is counted before what became of the retries.
				testutil.Eventually(t, 5*time.Second, func() error {
					var n uint64
					w.p.Each(func(s *route.Service) { n += s.Classes[tc.status/100].Load() }, func(*route.Endpoint) {})
					if n != 1 {
						return fmt.Errorf("%d answers of class %dxx", n, tc.status/100)
					}
					return nil
				})
				counts(t, "retries", want, w.retries)
				counts(t, "the endpoint's tries by class", classes, w.classes)
			})
		})
	}
}

// What ends a connection is counted once, under its own word and no other.
func TestRefusedConnectionsAreCounted(t *testing.T) {
	for _, tc := range []struct {
		reason   string
		protocol lb.AppProtocol // of the service
		says     string
	}{
		{reasonNeedsHTTP2, lb.AppHTTP2, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
		{reasonNeedsHTTP2, lb.AppGRPC, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"},
		{reasonNeedsHTTP1, lb.AppHTTP, http2.ClientPreface},
		{reasonH2, lb.AppHTTP2, http2.ClientPreface + "no frame at all, but long enough to be taken for one"},
		{reasonNotAdmitted, lb.AppHTTP, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
	} {
		t.Run(tc.reason+" "+tc.protocol.String(), func(t *testing.T) {
			w := newWorld(t, "127.0.0.1:1")
			w.change(func(h *lb.HTTP) { h.Protocol = tc.protocol }, "127.0.0.1:1")
			w.stranger.Store(tc.reason == reasonNotAdmitted)
			c := w.dial()
			io.WriteString(c, tc.says) // it may be refused before it speaks
			c.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c.r)
			counts(t, "refusals", map[string]uint64{tc.reason: 1}, w.refusals)
		})
	}
}

// A head that does not come to its end is one, too.
func TestSlowHeadIsCounted(t *testing.T) {
	w := newWorld(t, "127.0.0.1:1")
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: ")
	expired := false
	testutil.Eventually(t, 5*time.Second, func() error {
		for _, l := range w.p.loops {
			l.call(func() {
				for c := range l.clients {
					if c.x != nil && len(c.x.req) > 0 && !expired {
						c.expired(nil) // ten seconds are over
						expired = true
					}
				}
			})
		}
		if !expired {
			return errors.New("nothing has come")
		}
		return nil
	})
	if r, _ := c.response("GET"); r.StatusCode != 408 || r.Header.Get("X-Connectd-Reason") != reasonSlow {
		t.Errorf("got %d (%s)", r.StatusCode, r.Header.Get("X-Connectd-Reason"))
	}
	counts(t, "refusals", map[string]uint64{reasonSlow: 1}, w.refusals)
}

// Calls are counted by the same words. A trailers-only UNAVAILABLE is tried
// again; with its endpoint it is an answer, and 200.
func TestRetriedCallsAreCounted(t *testing.T) {
	budget := lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 100}
	for _, tc := range []struct {
		name    string
		retry   lb.Retry
		fail    int64 // tries that are answered UNAVAILABLE
		message bool  // after a message
		status  string
		tries   int64
		want    map[string]uint64
	}{
		{"OK", budget, 0, false, "0", 1, map[string]uint64{}},
		{"once", budget, 1, false, "0", 2, map[string]uint64{"success": 1}},
		{"to the last", budget, 9, false, "14", 3, map[string]uint64{"failure": 1, "no_attempts": 1}},
		{"no attempts", lb.Retry{BudgetFloor: 100}, 9, false, "14", 1, map[string]uint64{"no_attempts": 1}},
		{"no budget", lb.Retry{Attempts: 2}, 9, false, "14", 1, map[string]uint64{"no_budget": 1}},
		{"after a message", budget, 9, true, "14", 1, map[string]uint64{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var tries atomic.Int64
			address := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/grpc")
				status := "0"
				if tries.Add(1) <= tc.fail {
					status = "14"
				}
				if status == "14" && !tc.message {
					w.Header().Set("Grpc-Status", status)
					return
				}
				io.WriteString(w, "\x00\x00\x00\x00\x01x")
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
			})
			w := newWorld(t, address)
			w.change(func(h *lb.HTTP) { h.Protocol, h.Retry = lb.AppGRPC, tc.retry }, address)
			req, err := http.NewRequestWithContext(t.Context(), "POST", w.url("/a.B/C"), strings.NewReader("\x00\x00\x00\x00\x01x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/grpc")
			r, err := w.h2client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			status := r.Header.Get("Grpc-Status") + r.Trailer.Get("Grpc-Status")
			if n := tries.Load(); r.StatusCode != 200 || status != tc.status || n != tc.tries {
				t.Errorf("got %d with grpc-status %s after %d tries, want %s after %d", r.StatusCode, status, n, tc.status, tc.tries)
			}
			counts(t, "the endpoint's tries by class", map[string]uint64{"2": uint64(tc.tries)}, w.classes)
			counts(t, "retries", tc.want, w.retries)
		})
	}
}
