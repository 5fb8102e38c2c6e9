package control

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

var start = time.Date(2025, 3, 1, 2, 0, 0, 0, time.UTC)

// socketPath is short: t.TempDir with a long test name would not fit into the
// 108 bytes of a socket address.
func socketPath(t testing.TB) string {
	dir, err := os.MkdirTemp("", "cd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "s")
}

func params(socket string, b Backend) Params {
	return Params{Socket: socket, Backend: b, Log: slog.New(slog.DiscardHandler)}
}

func mustListen(t testing.TB, socket string, b Backend) *Server {
	t.Helper()
	s, err := Listen(params(socket, b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// serve serves until the test ends, or until stop is called, which returns
// what Serve returned.
func serve(t testing.TB, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var err error
	go func() { defer close(done); err = s.Serve(ctx) }()
	stop = func() error { cancel(); <-done; return err }
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// serving returns a client of a server with that backend.
func serving(t testing.TB, b Backend) *Client {
	t.Helper()
	socket := socketPath(t)
	serve(t, mustListen(t, socket, b))
	return NewClient(socket)
}

// node is a backend with two services in two namespaces.
type node struct {
	endpoints []Endpoint
	reload    error
}

func newNode() *node {
	return &node{endpoints: []Endpoint{
		{Service: "prod/cache", Address: netip.MustParseAddrPort("[fd66::5]:6379"), Weight: 1, State: "active", Verdict: "unknown"},
		{Service: "prod/orders", Address: netip.MustParseAddrPort("10.66.0.3:8080"), Zone: "use1-az1", Weight: 1, State: "active",
			Reason: "r", Since: start, Verdict: "healthy", LastProbe: &Probe{At: start, DurationSeconds: 0.25, Error: "x"},
			ActiveConnections: 1, TotalConnections: 2, Failures: 3, DrainDeadline: start, EjectedUntil: start, AvoidedBy: []string{"web"}},
		{Service: "prod/orders", Address: netip.MustParseAddrPort("10.66.0.4:8080"), Weight: 3, State: "ejected", Verdict: "unhealthy"},
		{Service: "tools/orders", Address: netip.MustParseAddrPort("10.66.0.9:80"), Weight: 1, State: "draining", Verdict: "unknown"},
	}}
}

func (n *node) names() []lb.ServiceName {
	return []lb.ServiceName{{Namespace: "prod", DiscoveryName: "cache"}, {Namespace: "prod", DiscoveryName: "orders"}, {Namespace: "tools", DiscoveryName: "orders"}}
}

func (n *node) services() []Service {
	return []Service{
		{Name: "prod/cache", Protocol: "tcp", Policy: "random", Endpoints: StateCounts{"active": 1}},
		{Name: "prod/orders", Protocol: "tcp", Policy: "roundRobin", HealthCheck: "http", Endpoints: StateCounts{"active": 1, "ejected": 1},
			ActiveConnections: 1, Panic: true, LastResort: true,
			Names: []Name{{DNSName: "orders", Addresses: []netip.Addr{netip.MustParseAddr("127.254.0.7")}, Ports: []uint16{80}}}},
		{Name: "tools/orders", Protocol: "udp", Policy: "sourceHash", Endpoints: StateCounts{"draining": 1}},
	}
}

func (n *node) status() Status {
	return Status{
		Version: "1.2.3", PID: 42, Started: start, UptimeSeconds: 1.5,
		Config:    Config{Path: "/etc/c.yaml", Loaded: start},
		Catalog:   []CatalogFile{{Path: "/etc/catalog.yaml", Services: 3, Loaded: start}},
		Reconcile: Reconcile{Revision: 7, Applied: 7, Errors: 1, LastError: "old", LastErrorAt: start, Repaired: 2},
		Tasks:     []Task{{Name: "web", Kind: "netns", Target: "/run/netns/web", Namespaces: []string{"prod"}, Attached: true}},
		Kernel: Kernel{Release: "6.12.0", Cgroup: "/sys/fs/cgroup", Programs: []Program{{Name: "connect4", Attached: true}},
			Maps: []MapFill{{Name: "connections", Entries: 1, MaxEntries: 10, Bytes: 4096}}},
		Services: ServiceCounts{Total: 3}, Endpoints: StateCounts{"active": 2, "draining": 1},
	}
}

func (n *node) backend() Backend {
	return Backend{
		Status:   n.status,
		Names:    n.names,
		Services: n.services,
		Endpoints: func(service lb.ServiceName) []Endpoint {
			return slices.DeleteFunc(slices.Clone(n.endpoints), func(e Endpoint) bool { return service != lb.ServiceName{} && e.Service != service.String() })
		},
		Resolve: func(name, task string) []Resolution {
			if task != "" && task != "web" {
				return nil
			}
			return []Resolution{{Task: "web", Namespaces: []string{"prod"}, Found: true, Reason: name, Addresses: []netip.Addr{netip.MustParseAddr("127.254.0.7")},
				Targets: []Target{{Service: "prod/orders", Protocol: "tcp", Ports: []uint16{80}, Policy: "random",
					Endpoints: []Share{{Address: netip.MustParseAddrPort("10.66.0.3:8080"), State: "active", Percent: 33.25}}}}}}
		},
		Drain: func(_ context.Context, service lb.ServiceName, address netip.AddrPort, on bool) error {
			for i := range n.endpoints {
				if e := &n.endpoints[i]; e.Service == service.String() && e.Address == address {
					e.State = map[bool]string{true: "draining", false: "active"}[on]
					return nil
				}
			}
			return errors.New("no such endpoint")
		},
		Reload: func(context.Context) error { return n.reload },
	}
}
