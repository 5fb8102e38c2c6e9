package datapath

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// directRig is a service in mode direct with one endpoint, an HTTP server.
type directRig struct {
	*rig
	web, a *testutil.Host
	vip    string
}

func newDirectRig(t *testing.T, serve func(net.Listener)) *directRig {
	t.Helper()
	r := &directRig{rig: newRig(t)}
	r.web, r.a = r.w.Host("web"), r.w.Host("a")
	r.vip = at(vip4(1), 80)
	l := r.a.Listen("tcp", at(r.a.Addr4(), 8080))
	go serve(l)
	s := service(1, lb.TCP, at(r.a.Addr4(), 8080))
	s.HTTP = &lb.HTTP{Direct: true}
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{s}
		d.Tasks = []*plan.Task{r.task(r.web, 7)}
	})
	if err := r.dp.Direct(r.want); err != nil {
		t.Fatalf("direct: %+v", err)
	}
	return r
}

func (r *directRig) dial() net.Conn {
	r.tb.Helper()
	c, err := r.web.Dial(context.Background(), "tcp", r.vip)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// counted is what the kernel saw of the service.
func (r *directRig) counted() HTTPCounters {
	r.tb.Helper()
	services, endpoints, err := r.dp.HTTP()
	if err != nil {
		r.tb.Fatal(err)
	}
	s, e := services[1], endpoints[101]
	if s.Classes != e.Classes {
		r.tb.Errorf("service %v, endpoint %v", s.Classes, e.Classes)
	}
	callers, err := r.dp.HTTPCallers()
	if err != nil {
		r.tb.Fatal(err)
	}
	c := callers[Caller{7, 1}]
	if c.Classes != s.Classes || c.Time.Sum != s.Time.Sum || s.Time.Sum > 0 && !slices.Equal(c.Time.Buckets, s.Time.Buckets) {
		r.tb.Errorf("callers %v, service %v", callers, s)
	}
	return s
}

func (r *directRig) want2(what string, classes [6]uint64, leftOut uint64) {
	r.tb.Helper()
	got := r.counted()
	if got.Classes != classes || got.LeftOut != leftOut {
		r.tb.Errorf("%s: counted %v and %d left out, want %v and %d", what, got.Classes, got.LeftOut, classes, leftOut)
	}
}

// status answers with the status that the path names, /503.
func status(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	var code int
	fmt.Sscanf(r.URL.Path, "/%d", &code)
	w.WriteHeader(code)
	if code >= 200 && code != 204 && code != 304 {
		io.WriteString(w, strings.Repeat("x", 3000))
	}
}

func serveStatus(l net.Listener) { http.Serve(l, http.HandlerFunc(status)) }

func TestDirectKeepAlive(t *testing.T) {
	var handled atomic.Int64 // nanoseconds
	r := newDirectRig(t, func(l net.Listener) {
		http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun := time.Now()
			time.Sleep(time.Millisecond)
			handled.Add(int64(time.Since(begun)))
			status(w, r)
		}))
	})
	tr := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return r.web.Dial(ctx, network, r.vip) }}
	defer tr.CloseIdleConnections()
	var want [6]uint64
	var waited time.Duration
	for n := range 200 {
		code := []int{200, 404, 302, 500, 204}[n%5]
		req, _ := http.NewRequest([]string{"GET", "POST"}[n%2], fmt.Sprintf("http://s/%d", code), nil)
		if n%2 == 1 {
			req.Body = io.NopCloser(strings.NewReader(strings.Repeat("GET ", 20000)))
		}
		begun := time.Now()
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		waited += time.Since(begun)
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		want[code/100]++
	}
	r.want2("200 requests", want, 0)
	got := r.counted()
	n := uint64(0)
	for _, b := range got.Time.Buckets {
		n += b
	}
	// Each is rounded down to microseconds.
	if least := time.Duration(handled.Load()) - 200*time.Microsecond; n != 200 || got.Time.Sum < least || got.Time.Sum > waited {
		t.Errorf("%d durations, %s in all; the server took %s, the client waited %s", n, got.Time.Sum, least, waited)
	}
	// Negative control: with the programs gone nothing is counted.
	if err := r.dp.Direct(&plan.Desired{}); err != nil {
		t.Fatal(err)
	}
	if s, _, err := r.dp.HTTP(); len(s) > 0 || err != nil {
		t.Errorf("counters of nothing: %v (%v)", s, err)
	}
	for _, h := range directHooks {
		if removed, _ := removeLink(r.p.BPFFS, h.name); removed {
			t.Errorf("%s was still attached", h.name)
		}
	}
}

// However a request and its answer are cut into segments, they are counted once.
func TestDirectPieces(t *testing.T) {
	r := newDirectRig(t, func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					for _, b := range []byte("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok") {
						c.Write([]byte{b})
					}
				}
			}()
		}
	})
	c := r.dial()
	br := bufio.NewReader(c)
	for range 20 {
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: s\r\n\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
	}
	r.want2("byte by byte", [6]uint64{2: 20}, 0)
}

func TestDirectContinue(t *testing.T) {
	r := newDirectRig(t, serveStatus)
	c := r.dial()
	br := bufio.NewReader(c)
	for range 3 {
		fmt.Fprint(c, "POST /200 HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
		for _, want := range []int{100, 200} {
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != want {
				t.Fatalf("got %v (%v), want %d", res, err, want)
			}
			if want == 100 {
				fmt.Fprint(c, "abc")
			}
			io.Copy(io.Discard, res.Body)
		}
	}
	r.want2("100 Continue", [6]uint64{2: 3}, 0)
}

// A connection that pipelines is left out, and that is counted.
func TestDirectPipelined(t *testing.T) {
	for _, tc := range []struct{ name, first, second string }{
		{"in one write", "GET /200 HTTP/1.1\r\nHost: s\r\n\r\nGET /200 HTTP/1.1\r\nHost: s\r\n\r\n", ""},
		{"in two", "GET /200 HTTP/1.1\r\nHost: s\r\n\r\n", "GET /200 HTTP/1.1\r\nHost: s\r\n\r\n"},
		{"after a body", "POST /200 HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\n\r\nabc", "GET /200 HTTP/1.1\r\nHost: s\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate := make(chan struct{})
			var once sync.Once
			r := newDirectRig(t, func(l net.Listener) {
				http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					<-gate
					status(w, req)
				}))
			})
			defer once.Do(func() { close(gate) })
			c := r.dial()
			io.WriteString(c, tc.first)
			io.WriteString(c, tc.second)
			testutil.Eventually(t, 30*time.Second, func() error {
				if n := r.counted().LeftOut; n != 1 {
					return fmt.Errorf("%d connections left out", n)
				}
				return nil
			})
			once.Do(func() { close(gate) })
			br := bufio.NewReader(c)
			for range 2 {
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
			}
			r.want2("afterwards", [6]uint64{}, 1)
		})
	}
}

// Runs of 5xx become strikes.
func TestDirectStrikes(t *testing.T) {
	r := newDirectRig(t, serveStatus)
	ctx, cancel := context.WithCancel(context.Background())
	strikes := make(chan lb.Strike, 64)
	done := make(chan error, 1)
	go func() { done <- r.dp.Events(ctx, func(s lb.Strike) { strikes <- s }) }()
	defer func() { cancel(); <-done }()
	c := r.dial()
	br := bufio.NewReader(c)
	for _, code := range []int{500, 503, 200, 200, 500} {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: s\r\n\r\n", code)
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
	}
	for _, want := range []uint32{1, 2, 0, 1} {
		select {
		case s := <-strikes:
			if !s.HTTP || s.Count != want || s.Endpoint != 101 || s.Task != 7 {
				t.Errorf("got %+v, want a run of %d", s, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no strike")
		}
	}
}
