package health

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// catalog makes services of 10 endpoints each, with a check or without.
func catalog(services int, hc *lb.HealthCheck) *plan.Desired {
	d := &plan.Desired{}
	id := lb.EndpointID(0)
	for i := range services {
		list := make([]lb.EndpointID, 10)
		for k := range list {
			id++
			list[k] = id
		}
		d.Services = append(d.Services, service(fmt.Sprintf("service-%05d", i), hc, list...))
	}
	return d
}

func BenchmarkSetTargets(b *testing.B) {
	for name, hc := range map[string]*lb.HealthCheck{"checked": tcpCheck(2, 2), "unchecked": nil} {
		d := catalog(10000, hc)
		b.Run(name+"/unchanged", func(b *testing.B) {
			p := New(Params{})
			p.SetTargets(d)
			b.ReportAllocs()
			for b.Loop() {
				p.SetTargets(&plan.Desired{Services: d.Services})
			}
		})
		b.Run(name+"/one-changed", func(b *testing.B) {
			p := New(Params{})
			p.SetTargets(d)
			other := &plan.Desired{Services: slices.Clone(d.Services)}
			changed := *d.Services[5000]
			other.Services[5000] = &changed
			b.ReportAllocs()
			for b.Loop() {
				p.SetTargets(other)
				p.SetTargets(d)
			}
		})
		b.Run(name+"/all-new", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				New(Params{}).SetTargets(d)
			}
		})
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkBytesPerTarget(b *testing.B) {
	d := catalog(10000, tcpCheck(2, 2))
	for b.Loop() {
		before := heapInUse()
		p := New(Params{})
		p.SetTargets(d)
		b.ReportMetric(float64(heapInUse()-before)/100000, "B/target")
		runtime.KeepAlive(p)
	}
}

// BenchmarkScheduling is the cost of one probe beside the probe itself, with
// 100,000 targets that are always due.
func BenchmarkScheduling(b *testing.B) {
	var left atomic.Int64
	done := make(chan struct{})
	left.Store(int64(b.N))
	p := New(Params{Report: func([]lb.VerdictChange) {}})
	p.probe = func(context.Context, attempt) outcome {
		if left.Add(-1) == 0 {
			close(done)
		}
		return outcome{resultSuccess, "connected"}
	}
	hc := tcpCheck(2, 2)
	hc.Interval = time.Microsecond
	p.SetTargets(catalog(10000, hc))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- p.Run(ctx) }()
	<-done
	cancel()
	<-ended
}

// BenchmarkProbe is a probe of a server in this process, its work included.
func BenchmarkProbe(b *testing.B) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	web, secure := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	defer web.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	grpc, _ := grpcServer(b)
	addr := func(s *httptest.Server) netip.AddrPort { return netip.MustParseAddrPort(s.Listener.Addr().String()) }
	for _, c := range []struct {
		hc   lb.HealthCheck
		addr netip.AddrPort
	}{
		{lb.HealthCheck{Protocol: lb.CheckTCP}, addr(web)},
		{lb.HealthCheck{Protocol: lb.CheckHTTP, Path: "/"}, addr(web)},
		{lb.HealthCheck{Protocol: lb.CheckHTTPS, Path: "/", InsecureSkipVerify: true}, addr(secure)},
		{lb.HealthCheck{Protocol: lb.CheckGRPC}, grpc},
	} {
		b.Run(string(c.hc.Protocol), func(b *testing.B) {
			p := newProtocols()
			b.ReportAllocs()
			for b.Loop() {
				if o := probeOnce(b, p, c.hc, c.addr); o.result != resultSuccess {
					b.Fatal(o)
				}
			}
		})
	}
}
