package plan

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// bigCatalog lists services of ten endpoints each, over three zones.
func bigCatalog(services int, policy lb.Policy) []*lb.Service {
	out := make([]*lb.Service, services)
	for i := range out {
		name := fmt.Sprintf("service-%05d", i)
		s := &lb.Service{
			Name:          lb.ServiceName{Namespace: "prod", DiscoveryName: name},
			Protocol:      lb.TCP,
			ClientAliases: []lb.ClientAlias{{DNSName: name, Port: 80}},
			HealthCheck:   &lb.HealthCheck{Protocol: lb.CheckTCP},
			LoadBalancing: lb.LoadBalancing{Policy: policy, PanicThresholdPercent: 50},
			Drain:         lb.Drain{Deadline: 30 * time.Second, Terminate: true},
			Outlier:       lb.Outlier{ConsecutiveFailures: 5, BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjectionPercent: 50},
		}
		for k := range 10 {
			n := i*10 + k
			addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
			s.Endpoints = append(s.Endpoints, lb.Endpoint{Address: netip.AddrPortFrom(addr, 8080), Zone: zoneNames[k%3], Weight: 1})
		}
		out[i] = s
	}
	return out
}

var zoneNames = [...]string{"use1-az1", "use1-az2", "use1-az3"}

func mustNew(tb testing.TB, cfg Config, journal []byte) *Planner {
	tb.Helper()
	p, err := New(cfg, journal)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func healthy(d *Desired) []lb.VerdictChange {
	var out []lb.VerdictChange
	for _, s := range d.Services {
		for _, e := range s.Endpoints {
			out = append(out, lb.VerdictChange{Endpoint: e.ID, Verdict: lb.VerdictHealthy})
		}
	}
	return out
}

func BenchmarkFirstStep(b *testing.B) {
	for _, bench := range []struct {
		name   string
		policy lb.Policy
		zone   string
	}{{"roundRobin", lb.RoundRobin, ""}, {"zones", lb.RoundRobin, zoneNames[2]}, {"sourceHash", lb.SourceHash, ""}} {
		b.Run(bench.name, func(b *testing.B) {
			catalog := bigCatalog(10_000, bench.policy)
			for _, s := range catalog {
				s.HealthCheck = nil // so that slots are filled at once
			}
			b.ReportAllocs()
			for b.Loop() {
				p := mustNew(b, Config{Zone: bench.zone}, nil)
				p.SetCatalog(catalog)
				p.Step(epoch)
			}
		})
	}
}

func BenchmarkStepOneServiceChanged(b *testing.B) {
	catalog := bigCatalog(10_000, lb.RoundRobin)
	p := mustNew(b, Config{}, nil)
	p.SetCatalog(catalog)
	p.Observe(healthy(p.Step(epoch)), nil, nil)
	p.Step(epoch)
	a, z := *catalog[5000], *catalog[5000]
	z.Endpoints = slices.Clone(a.Endpoints)
	z.Endpoints[3].Weight = 2
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := slices.Clone(catalog)
		next[5000] = &a
		if i%2 == 0 {
			next[5000] = &z
		}
		p.SetCatalog(next)
		p.Step(epoch)
	}
}

func BenchmarkStepUnchanged(b *testing.B) {
	p := mustNew(b, Config{}, nil)
	p.SetCatalog(bigCatalog(10_000, lb.RoundRobin))
	p.Step(epoch)
	b.ReportAllocs()
	for b.Loop() {
		p.Step(epoch)
	}
}

func BenchmarkRestart(b *testing.B) {
	catalog := bigCatalog(10_000, lb.RoundRobin)
	p := mustNew(b, Config{}, nil)
	p.SetCatalog(catalog)
	p.Observe(healthy(p.Step(epoch)), nil, nil)
	p.Step(epoch)
	journal := p.Snapshot()
	b.ReportMetric(float64(len(journal)), "journal-bytes")
	b.ReportAllocs()
	for b.Loop() {
		p := mustNew(b, Config{}, journal)
		p.SetCatalog(catalog)
		p.Step(epoch)
	}
}

// BenchmarkHeap reports what the planner and its Desired hold, without the
// catalog itself.
func BenchmarkHeap(b *testing.B) {
	catalog := bigCatalog(10_000, lb.RoundRobin)
	for b.Loop() {
		before := heapInUse()
		p := mustNew(b, Config{}, nil)
		p.SetCatalog(catalog)
		d := p.Step(epoch)
		b.ReportMetric(float64(heapInUse()-before)/(1<<20), "MiB-first")
		p.Observe(healthy(d), nil, nil)
		d = p.Step(epoch)
		catalog2 := slices.Clone(catalog)
		one := *catalog[7]
		catalog2[7] = &one
		p.SetCatalog(catalog2)
		d = p.Step(epoch)
		b.ReportMetric(float64(heapInUse()-before)/(1<<20), "MiB-rest")
		runtime.KeepAlive(d)
		runtime.KeepAlive(p)
	}
	runtime.KeepAlive(catalog)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
