package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
	"connectd/pkg/testutil"
)

// serveH2 starts a server that speaks HTTP/2 with prior knowledge only.
func serveH2(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	return serveH2Conn(tb, func(net.Conn) http.HandlerFunc { return h })
}

// serveH2Conn is the same with a handler for each connection.
func serveH2Conn(tb testing.TB, handler func(net.Conn) http.HandlerFunc) string {
	tb.Helper()
	s := &http2.Server{}
	return raw(tb, func(c net.Conn) { s.ServeConn(c, &http2.ServeConnOpts{Handler: handler(c)}) })
}

// h2client is a client with one HTTP/2 connection.
func (w *world) h2client() *http.Client {
	t := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		return net.Dial("tcp", w.vip.String())
	}}
	w.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func TestHTTP2(t *testing.T) {
	bad := serveH2(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	good := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b), " ", r.Header.Get("X-Forwarded-For"), " ", len(r.Header.Get("X-Request-Id")))
	})
	w := newWorld(t, bad, good)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, bad, good)
	c := w.h2client()
	for _, size := range []int{0, 10, 100 << 10, 3 << 20} {
		for range 4 {
			req, _ := http.NewRequest("PUT", "http://orders/x", strings.NewReader(strings.Repeat("x", size)))
			r, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			want := fmt.Sprint(size, " 127.0.0.1 36")
			// What was too large to be kept cannot be sent again.
			if string(b) != want && !(size > maxReplay && r.StatusCode == 503) {
				t.Errorf("%d bytes: got %d %q, want %q", size, r.StatusCode, b, want)
			}
		}
	}
	testutil.Eventually(t, 5*time.Second, func() error { // the last stream ends when its end was written
		got := w.p.Clients(10)
		if len(got) != 1 || !got[0].HTTP2 || got[0].Requests != 16 || got[0].InFlight != 0 || got[0].VIP != w.vip {
			return fmt.Errorf("clients are %+v, want one with 16 requests", got)
		}
		return nil
	})
}

// An HTTP/1 client of an HTTP/2 service is told, and the reverse.
func TestWrongProtocol(t *testing.T) {
	h2s, h1s := serveH2(t, named("two")), serve(t, named("one"))
	w := newWorld(t, h1s)
	if _, err := w.h2client().Get("http://orders/"); err == nil {
		t.Error("HTTP/2 to an HTTP/1 service works")
	}
	c := w.dial()
	c.send(http2.ClientPreface)
	framer := http2.NewFramer(c.Conn, c.r)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*http2.GoAwayFrame); ok {
			if f.ErrCode != http2.ErrCodeHTTP11Required {
				t.Errorf("sent away with %s", f.ErrCode)
			}
			break
		}
	}
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, h2s)
	if status, body := w.get("/"); status != 505 || !strings.Contains(body, reasonNeedsHTTP2) {
		t.Errorf("HTTP/1 to an HTTP/2 service: %d %q", status, body)
	}
}

type healthServer struct {
	grpc_health_v1.UnimplementedHealthServer
	code codes.Code
}

func (h *healthServer) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if h.code != codes.OK {
		return nil, status.Error(h.code, "no")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func serveGRPC(tb testing.TB, code codes.Code) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, &healthServer{code: code})
	go s.Serve(l)
	tb.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	down, up := serveGRPC(t, codes.Unavailable), serveGRPC(t, codes.OK)
	w := newWorld(t, down)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppGRPC }, down, up)
	conn, err := grpc.NewClient("passthrough:///"+w.vip.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// A request that is given up while its connection is being made is not touched
// when that comes to an end.
func TestHTTP2GivenUpWhileDialing(t *testing.T) {
	to := blackHole(t)
	w := newWorld(t, to)
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 }, to)
	c := w.h2client()
	waits := make(chan *http.Response, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://orders/first", nil)
		c.Do(req)
		// It is gone. The next one waits for the same connection.
		r, err := c.Get("http://orders/second")
		if err != nil {
			t.Error(err)
		}
		waits <- r
	}()
	testutil.Eventually(t, 5*time.Second, func() error {
		var open int64
		w.p.table.Each(func(*route.Service) {}, func(e *route.Endpoint) { open += e.Open.Load() })
		if open == 0 {
			return errors.New("no connection is being made")
		}
		return nil
	})
	cancel()
	if r := <-waits; r != nil {
		r.Body.Close()
		if r.StatusCode != 503 {
			t.Errorf("got %d", r.StatusCode)
		}
	}
}

// blackHole is an address that answers no SYN: its backlog is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
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
	addr := addrPort(name).String()
	filler, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return addr
}

// A client that has gone is forgotten, whichever way it spoke and left.
func TestClientsAreForgotten(t *testing.T) {
	address := serveH2(t, named("two"))
	w := newWorld(t, address)
	w.change(func(h *lb.HTTP) { h.Protocol, h.IdleTimeout = lb.AppHTTP2, 200*time.Millisecond }, address)
	gone := func(what string) {
		t.Helper()
		testutil.Eventually(t, 5*time.Second, func() error {
			if n := w.p.Stats().Clients; n > 0 {
				return fmt.Errorf("%s: %d clients", what, n)
			}
			return nil
		})
	}
	c := w.h2client()
	for range 2 {
		if r, err := c.Get("http://orders/"); err != nil || r.StatusCode != 200 {
			t.Fatalf("got %v (%v)", r, err)
		}
		gone("idle")
	}
	bare := w.dial()
	bare.send(http2.ClientPreface)
	bare.Close()
	gone("closed")
	bare = w.dial()
	bare.send(http2.ClientPreface + "no frame at all, but long enough to be taken for one")
	gone("rubbish")
	half := w.dial()
	half.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	half.Conn.(*net.TCPConn).CloseWrite()
	gone("half-closed after a request")
}
