package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"connectd/pkg/testutil"
)

// serveH2C starts a server on a host, port 8080, that speaks HTTP/2 with prior
// knowledge only.
func serveH2C(h *testutil.Host, handler http.HandlerFunc) {
	l := h.Listen("tcp", at(h.Addr4(), 8080))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go (&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Handler: handler})
		}
	}()
}

// h2cClient has one HTTP/2 connection from inside a host.
func h2cClient(tb testing.TB, h *testutil.Host) *http.Client {
	t := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return h.Dial(ctx, network, address)
	}}
	tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

// A real HTTP/2 client and many streams: the 503s of one endpoint are not seen.
func TestHTTP2Clients(t *testing.T) {
	t.Parallel()
	need(t, "h2load")
	s := newShop(t)
	for name, code := range map[string]int{"a": 200, "b": 503} {
		s.servers[name] = s.w.Host(name)
		serveH2C(s.servers[name], func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	// The half of the requests are tried again, which is more than a budget of
	// 20 % allows.
	s.begin(service("orders", "appProtocol: http2\nretry: {budgetPercent: 100}\noutlier: {maxEjectionPercent: 0, consecutiveFailures: 1000}", "a", "b"))
	out := output(t, s.web, "h2load", "-n2000", "-c4", "-m10", "-t1", "http://"+s.at80("orders")+"/")
	if !strings.Contains(out, "2000 succeeded, 0 failed, 0 errored, 0 timeout") || !strings.Contains(out, "status codes: 2000 2xx") {
		t.Errorf("h2load says:\n%s", out)
	}
	if n := s.metric("connectd_http_retries_total", "outcome", "success"); n == 0 {
		t.Error("nothing was tried again")
	}
}

type grpcHealth struct {
	grpc_health_v1.UnimplementedHealthServer
	code codes.Code
}

func (h grpcHealth) Check(context.Context, *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if h.code != codes.OK {
		return nil, status.Error(h.code, "not here")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// A gRPC client: calls of one connection are balanced, UNAVAILABLE is tried
// elsewhere, other errors are the application's, and all are counted by status.
func TestGRPCClient(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for name, code := range map[string]codes.Code{"a": codes.OK, "b": codes.Unavailable, "c": codes.NotFound} {
		s.servers[name] = s.w.Host(name)
		l := s.servers[name].Listen("tcp", at(s.servers[name].Addr4(), 8080))
		server := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(server, grpcHealth{code: code})
		go server.Serve(l)
		s.servers[name].OnClose(server.Stop)
	}
	fields := "appProtocol: grpc\nretry: {budgetPercent: 100}\noutlier: {maxEjectionPercent: 0, consecutiveFailures: 1000}"
	s.begin(service("orders", fields, "a", "b"), service("lost", fields, "c"))
	calls := func(name string, want codes.Code) {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+s.at80(name), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return s.web.Dial(ctx, "tcp", address) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			cancel()
			if got := status.Code(err); got != want {
				t.Errorf("%s: %s (%v), want %s", name, got, err, want)
			}
		}
	}
	calls("orders", codes.OK)
	calls("lost", codes.NotFound)
	for grpcStatus, want := range map[string]float64{"0": 20, "5": 20} {
		if n := s.metric("connectd_grpc_responses_total", "grpc_status", grpcStatus); n != want {
			t.Errorf("%v calls with status %s, want %v", n, grpcStatus, want)
		}
	}
}
