package health

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"connectd/pkg/lb"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// grpcServer starts a real gRPC server with the standard health service.
func grpcServer(t testing.TB) (netip.AddrPort, *grpchealth.Server) {
	t.Helper()
	s, h := grpc.NewServer(), grpchealth.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	return startGRPC(t, s), h
}

func startGRPC(t testing.TB, s *grpc.Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestGRPC(t *testing.T) {
	addr, health := grpcServer(t)
	health.SetServingStatus("orders", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	health.SetServingStatus("payments.v1.Payments", grpc_health_v1.HealthCheckResponse_SERVING)
	health.SetServingStatus("unknown", grpc_health_v1.HealthCheckResponse_UNKNOWN)
	p := newProtocols()
	check := func(service string) outcome {
		return probeOnce(t, p, lb.HealthCheck{Protocol: lb.CheckGRPC, GRPCService: service}, addr)
	}
	want(t, check(""), resultSuccess, "grpc SERVING")
	want(t, check("payments.v1.Payments"), resultSuccess, "grpc SERVING")
	want(t, check("orders"), resultStatus, "grpc NOT_SERVING")
	want(t, check("unknown"), resultStatus, "grpc UNKNOWN")
	want(t, check("missing"), resultStatus, "grpc NOT_FOUND")
	health.Shutdown()
	want(t, check(""), resultStatus, "grpc NOT_SERVING")

	bare := startGRPC(t, grpc.NewServer())
	want(t, probeOnce(t, p, lb.HealthCheck{Protocol: lb.CheckGRPC}, bare), resultStatus, "grpc UNIMPLEMENTED")
}

func TestGRPCBadServers(t *testing.T) {
	h2c := func(handler http.HandlerFunc) netip.AddrPort {
		s := httptest.NewUnstartedServer(handler)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		return netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	reply := func(body []byte, status string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write(body)
			if status != "" {
				w.Header().Set("Grpc-Status", status)
			}
		}
	}
	closes := serve(t, func(net.Conn) {})
	for _, c := range []struct {
		name   string
		addr   netip.AddrPort
		result result
		reason string
	}{
		{"HTTP/1", serve(t, answerWith("HTTP/1.1 200 OK\r\n\r\n")), resultProtocol, "reading response: "},
		{"closes", closes, resultProtocol, ""},
		{"no such page", h2c(http.NotFound), resultStatus, "status 404"},
		{"a web page", h2c(func(w http.ResponseWriter, r *http.Request) {}), resultProtocol, "without a grpc-status"},
		{"strange code", h2c(reply(nil, "99")), resultStatus, "grpc code 99"},
		{"no message", h2c(reply(nil, "0")), resultProtocol, "malformed message"},
		{"broken message", h2c(reply([]byte{0, 0, 0, 0, 1, 8}, "0")), resultProtocol, "malformed message"},
		{"compressed", h2c(reply([]byte{1, 0, 0, 0, 0}, "0")), resultProtocol, "malformed message"},
		{"huge", h2c(reply(make([]byte, 1<<20), "0")), resultProtocol, ""},
		{"empty message", h2c(reply([]byte{0, 0, 0, 0, 0}, "0")), resultStatus, "grpc UNKNOWN"},
		{"serving", h2c(reply([]byte{0, 0, 0, 0, 2, 8, 1}, "0")), resultSuccess, "grpc SERVING"},
		{"silent", h2c(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), resultTimeout,
			"timeout after 200ms reading response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hc := lb.HealthCheck{Protocol: lb.CheckGRPC}
			if c.result == resultTimeout {
				hc.Timeout = 200 * time.Millisecond
			}
			want(t, probeOnce(t, newProtocols(), hc, c.addr), c.result, c.reason)
		})
	}
}

func TestServingStatusSkipsUnknownFields(t *testing.T) {
	m := protowire.AppendTag(nil, 9, protowire.BytesType)
	m = protowire.AppendString(m, "a later version's")
	m = protowire.AppendTag(m, 1, protowire.VarintType)
	m = protowire.AppendVarint(m, 2)
	status, err := servingStatus(append([]byte{0, 0, 0, 0, byte(len(m))}, m...))
	if status != 2 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

// FuzzServingStatus: no message from an endpoint crashes a probe.
func FuzzServingStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) { servingStatus(b) })
}
