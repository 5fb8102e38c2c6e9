package health

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpCheck is a check with the given thresholds, every 10 s within 1 s.
func tcpCheck(healthy, unhealthy uint32) *lb.HealthCheck {
	return &lb.HealthCheck{
		Protocol: lb.CheckTCP, Path: "/", Interval: 10 * time.Second, Timeout: time.Second,
		HealthyThreshold: healthy, UnhealthyThreshold: unhealthy, From: lb.FromNode,
	}
}

func address(id lb.EndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)}), 8080)
}

// service makes a planned service with endpoints of these ids.
func service(name string, hc *lb.HealthCheck, ids ...lb.EndpointID) *plan.Service {
	s := &plan.Service{Service: &lb.Service{
		Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP, HealthCheck: hc,
	}, NamespaceID: 3}
	for _, id := range ids {
		s.Endpoints = append(s.Endpoints, plan.Endpoint{Endpoint: lb.Endpoint{Address: address(id), Weight: 1}, ID: id})
	}
	return s
}

func desired(services ...*plan.Service) *plan.Desired { return &plan.Desired{Services: services} }

func ids(n int) []lb.EndpointID {
	list := make([]lb.EndpointID, n)
	for i := range list {
		list[i] = lb.EndpointID(i + 1)
	}
	return list
}

// world runs a Prober whose probes are answered by a function, and records
// what it does.
type world struct {
	*Prober
	mu      sync.Mutex
	begun   map[netip.AddrPort][]time.Duration // when each endpoint was probed
	running int
	most    int // running at once
	changes []lb.VerdictChange
	calls   int // of Report
	results map[string]int
	stop    func()
}

// answer is a scripted probe.
type answer func(ctx context.Context, a attempt) outcome

func well(context.Context, attempt) outcome { return outcome{resultSuccess, "connected"} }

func dead(context.Context, attempt) outcome {
	return outcome{resultConnect, "connect: connection refused"}
}

// hang is a black hole.
func hang(ctx context.Context, a attempt) outcome {
	<-ctx.Done()
	return a.failure(ctx, resultTimeout, "connecting", ctx.Err())
}

// run starts a Prober in the calling synctest bubble and ends it with the test.
func run(t *testing.T, probe answer, change func(*Params)) *world {
	t.Helper()
	w := &world{begun: make(map[netip.AddrPort][]time.Duration), results: make(map[string]int)}
	params := Params{
		Log: slog.New(slog.DiscardHandler),
		Report: func(c []lb.VerdictChange) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls++
			w.changes = append(w.changes, c...)
		},
		Observe: func(_ lb.ServiceName, result string, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.results[result]++
		},
	}
	if change != nil {
		change(&params)
	}
	w.Prober = New(params)
	w.probe = func(ctx context.Context, a attempt) outcome {
		w.mu.Lock()
		w.begun[a.addr] = append(w.begun[a.addr], w.now())
		w.running++
		w.most = max(w.most, w.running)
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			w.running--
			w.mu.Unlock()
		}()
		return probe(ctx, a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// probes returns how often an endpoint was probed.
func (w *world) probes(id lb.EndpointID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.begun[address(id)])
}

func (w *world) all() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, times := range w.begun {
		n += len(times)
	}
	return n
}

// takeChanges returns what was reported since the last call.
func (w *world) takeChanges() []lb.VerdictChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.changes
	w.changes = nil
	return c
}
