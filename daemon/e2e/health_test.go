package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"connectd/pkg/testutil"
)

// healthServer answers HTTP checks on port 9000 of a host.
type healthServer struct{ sick atomic.Bool }

func (s *shop) healthServer(on string) *healthServer {
	s.Helper()
	h := &healthServer{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || h.sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	s.serve(on, 9000, server.Serve, func() { server.Close() })
	return h
}

// serve runs a server on a port of a host until the test ends.
func (s *shop) serve(on string, port int, serve func(net.Listener) error, stop func()) {
	s.Helper()
	ln := s.servers[on].Listen("tcp", at(s.servers[on].Addr4(), port))
	done := make(chan struct{})
	go func() { defer close(done); serve(ln) }()
	s.Cleanup(func() { stop(); <-done })
}

const fastCheck = "port: 9000, intervalSeconds: 0.1, timeoutSeconds: 0.1, healthyThreshold: 1, unhealthyThreshold: 2}\n"

// TestProbes: a failing check moves traffic; connections end with `terminate`
// and go on with `leave`; when all fail, all are used and none is ended.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	a, b := s.healthServer("a"), s.healthServer("b")
	check := "healthCheck: {protocol: http, path: /healthz, " + fastCheck
	s.begin(service("orders", check+"drain: {deadlineSeconds: 1, connections: terminate}", "a", "b"),
		service("keep", check+"drain: {deadlineSeconds: 1, connections: leave}", "a", "b"))
	for _, name := range []string{"orders", "keep"} {
		s.inState("prod/"+name, s.endpoint("a"), "active")
		s.inState("prod/"+name, s.endpoint("b"), "active")
	}
	orders, keep := s.at80("orders"), s.at80("keep")
	toA, toB, kept := holdAt(t, s.web, orders, "a"), holdAt(t, s.web, orders, "b"), holdAt(t, s.web, keep, "b")
	direct := hold(t, s.web, s.endpoint("b").String())
	b.sick.Store(true)
	s.inState("prod/orders", s.endpoint("b"), "unhealthy")
	s.inState("prod/keep", s.endpoint("b"), "unhealthy")
	for _, address := range []string{orders, keep} {
		if got := spread(s.web, "tcp", address, 20); got["a"] != 20 {
			t.Errorf("b is unhealthy: %v", got)
		}
	}
	if err := toB.ended(5 * time.Second); err != nil {
		t.Error(err)
	}
	for what, c := range map[string]*held{"to a": toA, "with leave": kept, "not by a VIP": direct} {
		if err := c.works(); err != nil {
			t.Errorf("connection %s: %s", what, err)
		}
	}
	// Now a as well: panic. Nobody is better than another, nothing is ended.
	a.sick.Store(true)
	s.inState("prod/orders", s.endpoint("a"), "unhealthy")
	if got := spread(s.web, "tcp", orders, 20); got["a"] < 5 || got["b"] < 5 {
		t.Errorf("all are unhealthy: %v, want both to be used", got)
	}
	if err := toA.works(); err != nil {
		t.Errorf("in panic: %s", err)
	}
	b.sick.Store(false)
	s.inState("prod/orders", s.endpoint("b"), "active")
	if got := spread(s.web, "tcp", orders, 20); got["b"] != 20 {
		t.Errorf("b is back: %v", got)
	}
	if err := toA.ended(5 * time.Second); err != nil {
		t.Errorf("out of panic: %s", err)
	}
}

// TestNotExposedBeforeFirstSuccess, and at once without a check.
func TestNotExposedBeforeFirstSuccess(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.healthServer("a").sick.Store(false)
	b := s.healthServer("b")
	b.sick.Store(true)
	s.begin(service("orders", "healthCheck: {protocol: http, path: /healthz, "+fastCheck, "a", "b"),
		service("alone", "healthCheck: {protocol: http, path: /healthz, "+fastCheck, "b"),
		service("plain", "", "b"))
	s.inState("prod/orders", s.endpoint("a"), "active")
	s.eventually(5*time.Second, func() error { // probed, and found wanting
		if e := s.endpoints("prod/orders")[s.endpoint("b")]; e.LastProbe == nil || e.State != "pending" {
			return fmt.Errorf("b is %s, probe %v", e.State, e.LastProbe)
		}
		return nil
	})
	if got := spread(s.web, "tcp", s.at80("orders"), 20); got["a"] != 20 {
		t.Errorf("b was never healthy: %v", got)
	}
	if _, err := s.web.Dial(t.Context(), "tcp", s.at80("alone")); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("only one that was never healthy: %v", err)
	}
	if got := spread(s.web, "tcp", s.at80("plain"), 3); got["b"] != 3 {
		t.Errorf("without a check: %v", got)
	}
	b.sick.Store(false)
	s.inState("prod/orders", s.endpoint("b"), "active")
	s.inState("prod/alone", s.endpoint("b"), "active")
	if got := spread(s.web, "tcp", s.at80("alone"), 3); got["b"] != 3 {
		t.Errorf("b is healthy: %v", got)
	}
}

// TestGRPCProbe asks the standard health service.
func TestGRPCProbe(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	status := map[string]*health.Server{}
	for name := range s.servers {
		server, h := grpc.NewServer(), health.NewServer()
		grpc_health_v1.RegisterHealthServer(server, h)
		h.SetServingStatus("orders.v1", grpc_health_v1.HealthCheckResponse_SERVING)
		s.serve(name, 9000, server.Serve, server.Stop)
		status[name] = h
	}
	// What b says is asked for, not how fast a machine answers that has other things to do.
	const check = "port: 9000, intervalSeconds: 1, timeoutSeconds: 1, healthyThreshold: 1, unhealthyThreshold: 2}\n"
	s.begin(service("orders", "healthCheck: {protocol: grpc, grpcService: orders.v1, "+check, "a", "b"))
	s.inState("prod/orders", s.endpoint("a"), "active")
	s.inState("prod/orders", s.endpoint("b"), "active")
	status["b"].SetServingStatus("orders.v1", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	s.inState("prod/orders", s.endpoint("b"), "unhealthy")
	if got := spread(s.web, "tcp", s.at80("orders"), 20); got["a"] != 20 {
		t.Errorf("b does not serve: %v", got)
	}
}

// TestCallerProbe: from: caller reaches what the node cannot.
func TestCallerProbe(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.web.ServeName("inside", "127.0.0.1:8080") // in the client's own namespace
	entry := `  - discoveryName: %[1]s
    clientAliases: [{dnsName: %[1]s, port: 80}]
    healthCheck: {protocol: tcp, from: %[1]s, intervalSeconds: 0.1, timeoutSeconds: 0.1, healthyThreshold: 1}
    endpoints: [{address: 127.0.0.1, port: 8080}]
`
	s.begin(fmt.Sprintf(entry, "caller"), fmt.Sprintf(entry, "node"))
	s.eventually(10*time.Second, func() error {
		for _, e := range s.endpoints("prod/caller") {
			if e.State != "active" {
				return fmt.Errorf("from caller: %s %s", e.State, e.Reason)
			}
		}
		for _, e := range s.endpoints("prod/node") {
			if e.State != "pending" || e.LastProbe == nil {
				return fmt.Errorf("from node: %s %s", e.State, e.Reason)
			}
		}
		return nil
	})
	if got := testutil.WhoAnswers(t, s.web, "tcp", s.at80("caller")); got != "inside" {
		t.Errorf("%q answers", got)
	}
}
