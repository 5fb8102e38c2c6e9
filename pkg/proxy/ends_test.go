package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

// A client that has sent its request and shuts down its side still gets the
// answer; one that is gone has its request cancelled.
func TestHalfCloseAndCancel(t *testing.T) {
	arrived, left := make(chan struct{}, 2), make(chan struct{}, 2)
	gate := make(chan struct{})
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-gate:
			io.WriteString(w, "late")
		case <-r.Context().Done():
			left <- struct{}{}
		}
	}))
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	c.Conn.(*net.TCPConn).CloseWrite()
	close(gate)
	if _, body := c.response("GET"); body != "late" {
		t.Errorf("got %q", body)
	}
	gate = make(chan struct{})
	c = w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Error("the request goes on without its client")
	}
}

// An idle connection that its endpoint has closed costs no try, and a POST is
// not sent into it.
func TestDeadPooled(t *testing.T) {
	var conns, requests atomic.Int64
	address := raw(t, func(c net.Conn) {
		conns.Add(1)
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		requests.Add(1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		// Closed while the forwarder keeps it.
	})
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) { h.Retry = lb.Retry{} }, address)
	c := w.client()
	for range 50 {
		r, err := c.Get(w.url("/"))
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("got %v (%v)", r, err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
}

func TestTimeouts(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	stuck := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/head" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		}
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	}
	address := serve(t, stuck)
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) { h.RequestTimeout, h.IdleTimeout = 100*time.Millisecond, 300*time.Millisecond }, address)
	if status, body := w.get("/"); status != 504 || !strings.Contains(body, reasonTimeout) {
		t.Errorf("got %d %q", status, body)
	}
	// After the head only idleness counts, and a cut is no end.
	r, err := w.client().Get(w.url("/head"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r.Body); err == nil {
		t.Error("a response that stopped halfway looks whole")
	}
	// A connection without a request.
	if err := w.dial().closed(); err != nil {
		t.Errorf("an idle connection ended with %v", err)
	}
	testutil.Eventually(t, 5*time.Second, func() error {
		if n := w.p.Stats().Clients; n > 0 {
			return fmt.Errorf("%d clients", n)
		}
		return nil
	})
}

// A response that trickles lives for as long as it does.
func TestServerSentEvents(t *testing.T) {
	next := make(chan string)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for text := range next {
			fmt.Fprintf(w, "data: %s\n\n", text)
			w.(http.Flusher).Flush()
		}
	})
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) { h.RequestTimeout = 200 * time.Millisecond }, address)
	go func() { next <- "0" }()
	r, err := w.client().Get(w.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	br := bufio.NewReader(r.Body)
	begin := time.Now()
	for n := 0; time.Since(begin) < 500*time.Millisecond; n++ {
		if line, err := br.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", n) {
			t.Fatalf("event %d is %q (%v)", n, line, err)
		}
		br.ReadString('\n')
		next <- fmt.Sprint(n + 1)
	}
	close(next)
}

func TestSmugglingIsRefused(t *testing.T) {
	address, requests := scripted(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	w := newWorld(t, address)
	for _, request := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"GET / HTTP/1.1\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
	} {
		c := w.dial()
		c.send(request)
		r, _ := c.response("GET")
		if r.StatusCode != 400 || !r.Close {
			t.Errorf("%q: got %d, close %v", request, r.StatusCode, r.Close)
		}
		if err := c.closed(); err != nil {
			t.Errorf("%q: %v", request, err)
		}
	}
	if n := requests.Load(); n > 0 {
		t.Errorf("%d of them reached the endpoint", n)
	}
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 70<<10) + "\r\n\r\n")
	if r, _ := c.response("GET"); r.StatusCode != 431 {
		t.Errorf("a large head gets %d", r.StatusCode)
	}
}

// A body that is badly framed in the middle ends the request, at the endpoint
// too.
func TestBadBodyInTheMiddle(t *testing.T) {
	ended, arrived := make(chan error, 1), make(chan struct{})
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		_, err := io.ReadAll(r.Body)
		ended <- err
	}))
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	<-arrived
	c.send("zz\r\n")
	if r, _ := c.response("POST"); r.StatusCode != 400 {
		t.Errorf("got %d", r.StatusCode)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the endpoint takes the body for whole")
		}
	case <-time.After(5 * time.Second):
		t.Error("the endpoint still waits")
	}
}

// Going away: requests in flight finish, the client hears that it was the last.
func TestAway(t *testing.T) {
	gate := make(chan struct{})
	arrived := make(chan struct{}, 1)
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-gate
		io.WriteString(w, "done")
	}))
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	away := make(chan struct{})
	go func() {
		w.p.Away()
		close(away)
	}()
	testutil.Eventually(t, 5*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.away {
			return errors.New("the kernel was not told")
		}
		return nil
	})
	close(gate)
	if r, body := c.response("GET"); body != "done" || !r.Close {
		t.Errorf("got %q, close %v", body, r.Close)
	}
	select {
	case <-away:
	case <-time.After(5 * time.Second):
		t.Error("still waiting for nobody")
	}
}

// After an away, whoever is attached anew is served for longer than an answer.
func TestBack(t *testing.T) {
	w := newWorld(t, serve(t, named("a")))
	w.p.Away()
	w.p.Back()
	if err := w.seat.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.seat, err = w.p.Attach(t.Context(), w.task, nil); err != nil {
		t.Fatal(err)
	}
	w.publish(serve(t, named("b"))) // of the new listener's address
	c := w.dial()
	for range 2 {
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if r, body := c.response("GET"); body != "b" || r.Close {
			t.Errorf("got %q, close %v", body, r.Close)
		}
	}
}

func local(c net.Conn) netip.AddrPort { return netip.MustParseAddrPort(c.LocalAddr().String()) }

// Clients are listed with what they do.
func TestClients(t *testing.T) {
	gate, arrived := make(chan struct{}), make(chan struct{}, 1)
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-gate
		}
		io.WriteString(w, "done")
	})
	w := newWorld(t, at)
	if got := w.p.Clients(10); len(got) != 0 {
		t.Errorf("nobody: %+v", got)
	}
	c, idle := w.dial(), w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	c.response("GET")
	listed := func() map[netip.AddrPort]Client {
		out := map[netip.AddrPort]Client{}
		for _, x := range w.p.Clients(10) {
			out[x.From] = x
		}
		return out
	}
	testutil.Eventually(t, 5*time.Second, func() error { // accepted, and the response accounted for
		if got := listed(); len(got) != 2 || got[local(c)].InFlight != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	want := map[netip.AddrPort]Client{
		local(c): {Task: 1, From: local(c), VIP: w.vip, Requests: 1}, local(idle): {Task: 1, From: local(idle), VIP: w.vip},
	}
	if got := listed(); !maps.Equal(got, want) {
		t.Errorf("between requests: %+v", got)
	}
	c.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	want[local(c)] = Client{Task: 1, From: local(c), VIP: w.vip, Requests: 2, InFlight: 1, Endpoint: netip.MustParseAddrPort(at)}
	if got := listed(); !maps.Equal(got, want) {
		t.Errorf("in a request: %+v", got)
	}
	if got := w.p.Clients(1); len(got) != 1 {
		t.Errorf("at most one: %+v", got)
	}
	close(gate)
	c.response("GET")
}

// Ending the connections to an endpoint: what the client has not heard of is
// tried elsewhere.
func TestTerminate(t *testing.T) {
	arrived := make(chan struct{}, 1)
	stuck := serve(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	good := serve(t, named("good"))
	w := newWorld(t, stuck)
	done := make(chan string, 1)
	go func() {
		_, body := w.get("/")
		done <- body
	}()
	<-arrived
	w.publish(stuck, good)
	if n := w.p.Active(1); n != 1 {
		t.Errorf("%d connections to the endpoint", n)
	}
	if n := w.p.Terminate([]lb.EndpointID{1}); n != 1 {
		t.Errorf("ended %d connections", n)
	}
	select {
	case body := <-done:
		if body != "good" {
			t.Errorf("got %q", body)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the request hangs")
	}
}

// Failures become strikes, and a success ends the run.
func TestStrikes(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			w.WriteHeader(500)
		}
	})
	w := newWorld(t, address)
	for range 3 {
		w.get("/")
	}
	bad.Store(false)
	w.get("/")
	// A request is accounted for when its client has the answer.
	testutil.Eventually(t, 5*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		var runs []uint32
		for _, s := range w.strikes {
			if s.Endpoint != 1 || s.Task != 1 || !s.HTTP {
				t.Errorf("strike %+v", s)
			}
			runs = append(runs, s.Count)
		}
		if fmt.Sprint(runs) != "[1 2 3 0]" {
			return fmt.Errorf("runs of %v", runs)
		}
		return nil
	})
}
