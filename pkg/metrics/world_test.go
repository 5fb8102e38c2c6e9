package metrics

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

var (
	reasons = []string{"refused", "timeout", "unreachable", "reset", "aborted", "terminated", "local", "other"}
	results = []string{"success", "connect", "timeout", "tls", "protocol", "status", "local", "no_caller"}
	bounds  = kernelBounds()
)

// kernelBounds are those of bpf/lib/types.h: 16 microseconds, doubled 18 times.
func kernelBounds() []float64 {
	var b []float64
	for n := 4; n <= 22; n++ {
		b = append(b, float64(uint64(1)<<n)/1e6)
	}
	return b
}

// world is what Sources read.
type world struct {
	desired   *plan.Desired
	kernel    Kernel
	kernelErr error
	probes    map[lb.ServiceName]ProbeStats
	ejections map[lb.ServiceName]uint64
}

func (w *world) sources() Sources {
	return Sources{
		Desired: func() *plan.Desired { return w.desired },
		Kernel: KernelSource{
			Reasons: reasons, Bounds: bounds,
			Read: func() (Kernel, error) { return w.kernel, w.kernelErr },
		},
		Probes: ProbeSource{Results: results, Each: func(yield func(lb.ServiceName, ProbeStats) bool) {
			for name, p := range w.probes {
				if !yield(name, p) {
					return
				}
			}
		}},
		Ejections: func() map[lb.ServiceName]uint64 { return w.ejections },
	}
}

var errKernel = errors.New("read map: permission denied")

// newWorld has services svc-0, svc-1 and so on, with n endpoints each; the
// endpoints of service s are ids s*n+1 to s*n+n.
func newWorld(services, n int) *world {
	w := &world{desired: &plan.Desired{Revision: 1}, kernel: Kernel{
		Endpoints: map[lb.EndpointID]EndpointStats{}, Services: map[lb.ServiceID]ServiceStats{},
	}}
	for s := range services {
		p := &plan.Service{
			Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: fmt.Sprintf("svc-%05d", s)}},
			ID:      lb.ServiceID(s + 1),
		}
		for e := range n {
			i := s*n + e + 1
			p.Endpoints = append(p.Endpoints, plan.Endpoint{
				ID: lb.EndpointID(i),
				Endpoint: lb.Endpoint{
					Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080),
				},
			})
		}
		w.desired.Services = append(w.desired.Services, p)
	}
	return w
}

// replan publishes a plan without the services that keep rejects.
func (w *world) replan(keep func(*plan.Service) *plan.Service) {
	d := &plan.Desired{Revision: w.desired.Revision + 1}
	for _, p := range w.desired.Services {
		if p = keep(p); p != nil {
			d.Services = append(d.Services, p)
		}
	}
	w.desired = d
}

// without is a changed copy of the service that lacks an endpoint.
func without(p *plan.Service, id lb.EndpointID) *plan.Service {
	c := *p
	c.Endpoints = slices.DeleteFunc(slices.Clone(p.Endpoints), func(e plan.Endpoint) bool { return e.ID == id })
	return &c
}

// traffic adds n connections, and as much of everything else, to an endpoint
// and its service.
func (w *world) traffic(svc lb.ServiceID, id lb.EndpointID, n uint64) {
	e := w.kernel.Endpoints[id]
	e.Active = n
	e.Connections += n
	e.Failures += n
	e.BytesSent += 100 * n
	e.BytesReceived += 1000 * n
	e.Retransmits += n
	w.kernel.Endpoints[id] = e
	s, ok := w.kernel.Services[svc]
	if !ok {
		s = ServiceStats{
			Failures:    make([]uint64, len(reasons)),
			ConnectTime: Histogram{Counts: make([]uint64, len(bounds)+1)},
			SRTT:        Histogram{Counts: make([]uint64, len(bounds)+1)},
		}
	}
	s.Failures[0] += n
	for _, h := range []*Histogram{&s.ConnectTime, &s.SRTT} {
		h.Counts[3] += n
		h.SumMicroseconds += 100 * n
	}
	w.kernel.Services[svc] = s
}

// values flattens what e serves: `name{label="value",...}`, without what Go
// and the process say. A histogram is its _count, _sum and _series, the
// number of its series.
func values(tb testing.TB, e *Exporter) map[string]float64 {
	tb.Helper()
	all, err := e.registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range all {
		for _, m := range f.Metric {
			var l []string
			for _, p := range m.Label {
				l = append(l, fmt.Sprintf("%s=%q", p.GetName(), p.GetValue()))
			}
			labels := ""
			if len(l) > 0 {
				labels = "{" + strings.Join(l, ",") + "}"
			}
			switch f.GetType() {
			case dto.MetricType_GAUGE:
				out[f.GetName()+labels] = m.Gauge.GetValue()
			case dto.MetricType_COUNTER:
				out[f.GetName()+labels] = m.Counter.GetValue()
			case dto.MetricType_HISTOGRAM:
				out[f.GetName()+"_count"+labels] = float64(m.Histogram.GetSampleCount())
				out[f.GetName()+"_sum"+labels] = m.Histogram.GetSampleSum()
				out[f.GetName()+"_series"+labels] = float64(len(m.Histogram.Bucket) + 3)
			}
		}
	}
	return out
}

// sum adds the values of all series of a name.
func sum(v map[string]float64, name string) (total float64) {
	for key, x := range v {
		if key == name || strings.HasPrefix(key, name+"{") {
			total += x
		}
	}
	return total
}

// count is how many series a scrape would have.
func count(v map[string]float64) (n int) {
	for key, x := range v {
		name, labels, _ := strings.Cut(key, "{")
		base, isSeries := strings.CutSuffix(name, "_series")
		for _, suffix := range [...]string{"_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if labels != "" {
			labels = "{" + labels
		}
		_, isHistogram := v[base+"_series"+labels]
		switch {
		case isSeries:
			n += int(x)
		case !isHistogram:
			n++
		}
	}
	return n
}

func endpointKey(name string, id int, svc string) string {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)}), 8080)
	return fmt.Sprintf(`connectd_%s{endpoint=%q,namespace="prod",service=%q}`, name, addr, svc)
}

func restKey(name, svc string) string {
	ns := "prod"
	if svc == "other" {
		ns = ""
	}
	return fmt.Sprintf(`connectd_%s{endpoint="other",namespace=%q,service=%q}`, name, ns, svc)
}

func expect(tb testing.TB, v map[string]float64, want map[string]float64) {
	tb.Helper()
	for key, x := range want {
		got, ok := v[key]
		if x < 0 { // must be absent
			if ok {
				tb.Errorf("%s = %v, want it absent", key, got)
			}
		} else if !ok || got != x {
			tb.Errorf("%s = %v (there: %t), want %v", key, got, ok, x)
		}
	}
}

var at = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
