package health

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"

	"golang.org/x/sys/unix"
)

// probeOnce probes addr for real and fails the test if the probe runs on past
// its timeout.
func probeOnce(t testing.TB, p *protocols, hc lb.HealthCheck, addr netip.AddrPort) outcome {
	t.Helper()
	if hc.Timeout == 0 {
		hc.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), hc.Timeout)
	defer cancel()
	began := time.Now()
	o := p.probe(ctx, attempt{HealthCheck: &hc, addr: addr})
	if took := time.Since(began); took > hc.Timeout+5*time.Second {
		t.Errorf("a probe with a timeout of %s took %s", hc.Timeout, took)
	}
	return o
}

func want(t *testing.T, got outcome, result result, reason string) {
	t.Helper()
	if got.result != result || !strings.Contains(got.reason, reason) {
		t.Errorf("got %s %q, want %s %q", got.result, got.reason, result, reason)
	}
}

// serve answers each connection with handle and closes it.
func serve(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

// closedPort returns an address that refuses connections: its port is bound
// by a socket that does not listen, so that nobody else can take it.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
}

func TestTCP(t *testing.T) {
	p := newProtocols()
	hc := lb.HealthCheck{Protocol: lb.CheckTCP}
	want(t, probeOnce(t, p, hc, serve(t, func(net.Conn) {})), resultSuccess, "connected")
	want(t, probeOnce(t, p, hc, closedPort(t)), resultConnect, "connect: connection refused")
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	for _, code := range []int{200, 204, 302, 399, 400, 404, 503} {
		mux.HandleFunc(fmt.Sprintf("/%d", code), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/503")
			w.WriteHeader(code)
		})
	}
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(maxResponse))
		w.Write(make([]byte, maxResponse))
	})
	mux.HandleFunc("/request", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != r.Context().Value(http.LocalAddrContextKey).(net.Addr).String() ||
			r.UserAgent() != "connectd/health" || !r.Close || r.Method != "GET" || r.URL.RawQuery != "deep=1" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	for path, expect := range map[string]outcome{
		"/200":            {resultSuccess, "status 200"},
		"/204":            {resultSuccess, "status 204"},
		"/302":            {resultSuccess, "status 302"},
		"/399":            {resultSuccess, "status 399"},
		"/400":            {resultStatus, "status 400"},
		"/404":            {resultStatus, "status 404"},
		"/503":            {resultStatus, "status 503"},
		"/hints":          {resultSuccess, "status 200"},
		"/endless":        {resultSuccess, "status 200"},
		"/large":          {resultSuccess, "status 200"},
		"/request?deep=1": {resultSuccess, "status 200"},
	} {
		if got := probeOnce(t, newProtocols(), lb.HealthCheck{Protocol: lb.CheckHTTP, Path: path}, addr); got != expect {
			t.Errorf("%s: got %v, want %v", path, got, expect)
		}
	}
}

// answerWith reads a request's head and sends raw bytes.
func answerWith(s string) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, s)
	}
}

func TestHTTPBadServers(t *testing.T) {
	hang := func(before string) func(net.Conn) {
		return func(c net.Conn) {
			answerWith(before)(c)
			io.Copy(io.Discard, c) // until the probe gives up
		}
	}
	for _, c := range []struct {
		name   string
		handle func(net.Conn)
		result result
		reason string
	}{
		{"closes", answerWith(""), resultProtocol, "reading response: connection closed in the middle"},
		{"resets", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			c.(*net.TCPConn).SetLinger(0)
		}, resultProtocol, "reading response: connection reset by peer"},
		{"garbage", answerWith("220 mail.example\x1b[1m ESMTP\r\n\r\n"), resultProtocol, "malformed HTTP"},
		{"half a head", answerWith("HTTP/1.1 200 OK\r\nServer: a\r\n"), resultProtocol, "closed in the middle"},
		{"half a body", answerWith("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), resultProtocol, "closed in the middle"},
		{"half a bad body", answerWith("HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\nhalf"), resultStatus, "status 500"},
		{"old", answerWith("HTTP/1.0 200 OK\r\n\r\nuntil the end"), resultSuccess, "status 200"},
		{"upgrade", answerWith("HTTP/1.1 101 Switching Protocols\r\n\r\n"), resultStatus, "status 101"},
		{"huge head", answerWith("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxResponse) + "\r\n\r\n"), resultProtocol, "over 64 KiB"},
		{"endless hints", answerWith(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxResponse/20)), resultProtocol, "over 64 KiB"},
		{"silent", hang(""), resultTimeout, "timeout after 200ms reading response"},
		{"slow body", hang("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), resultTimeout, "timeout after 200ms reading response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hc := lb.HealthCheck{Protocol: lb.CheckHTTP, Path: "/"}
			if c.result == resultTimeout {
				hc.Timeout = 200 * time.Millisecond
			}
			want(t, probeOnce(t, newProtocols(), hc, serve(t, c.handle)), c.result, c.reason)
		})
	}
}

// A full backlog drops SYNs, as a black hole does.
func TestConnectTimeout(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	filler, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	hc := lb.HealthCheck{Protocol: lb.CheckTCP, Timeout: 300 * time.Millisecond}
	want(t, probeOnce(t, newProtocols(), hc, addr), resultTimeout, "timeout after 300ms connecting")
}

func TestNoDescriptorsIsALocalFault(t *testing.T) {
	addr := serve(t, func(net.Conn) {})
	p, hc := newProtocols(), lb.HealthCheck{Protocol: lb.CheckTCP}
	want(t, probeOnce(t, p, hc, addr), resultSuccess, "connected")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	none := limit
	none.Cur = 3 // everything from descriptor 3 on is taken or out of bounds
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	want(t, probeOnce(t, p, hc, addr), resultLocal, "too many open files")
}

func TestUnknownProtocolIsALocalFault(t *testing.T) {
	hc := lb.HealthCheck{Protocol: "gopher"}
	want(t, probeOnce(t, newProtocols(), hc, serve(t, func(net.Conn) {})), resultLocal, `unknown probe protocol "gopher"`)
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestNoDescriptorLeaks(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	closes := serve(t, func(net.Conn) {})
	p := newProtocols()
	grpc, _ := grpcServer(t)
	probes := []struct {
		hc   lb.HealthCheck
		addr netip.AddrPort
	}{
		{lb.HealthCheck{Protocol: lb.CheckTCP}, closes},
		{lb.HealthCheck{Protocol: lb.CheckTCP}, closedPort(t)},
		{lb.HealthCheck{Protocol: lb.CheckHTTP, Path: "/"}, netip.MustParseAddrPort(web.Listener.Addr().String())},
		{lb.HealthCheck{Protocol: lb.CheckHTTPS, Path: "/"}, closes},
		{lb.HealthCheck{Protocol: lb.CheckGRPC}, grpc},
		{lb.HealthCheck{Protocol: lb.CheckGRPC}, closes},
	}
	round := func(n int) {
		for i := range n {
			probeOnce(t, p, probes[i%len(probes)].hc, probes[i%len(probes)].addr)
		}
	}
	round(len(probes))
	before := descriptors(t)
	round(1000)
	// The servers here close their ends when they get to it.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after := descriptors(t)
		if after <= before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors before 1,000 probes, %d after", before, after)
		}
	}
}
