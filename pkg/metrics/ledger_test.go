package metrics

import (
	"math/rand/v2"
	"strings"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// A sample of live bytes that shrinks must not look like a restart.
func TestBytesNeverShrink(t *testing.T) {
	w := newWorld(1, 2)
	w.traffic(1, 1, 10)
	e := New(w.sources())
	key := endpointKey("endpoint_sent_bytes_total", 1, "svc-00000")
	for _, step := range []struct{ sample, want float64 }{
		{1000, 1000}, {900, 1000}, {950, 1000}, {1000, 1000}, {1001, 1001}, {0, 1001}, {1500, 1500},
	} {
		st := w.kernel.Endpoints[1]
		st.BytesSent = uint64(step.sample)
		w.kernel.Endpoints[1] = st
		expect(t, values(t, e), map[string]float64{key: step.want})
	}
}

// An id given out anew starts counting at zero: its series must go on
// growing, from where it stood if the address is the same.
func TestCountersRestart(t *testing.T) {
	w := newWorld(1, 1)
	w.traffic(1, 1, 10)
	e := New(w.sources())
	values(t, e)
	clear(w.kernel.Endpoints)
	clear(w.kernel.Services)
	w.traffic(1, 1, 3)
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 1, "svc-00000"):                                13,
		endpointKey("endpoint_received_bytes_total", 1, "svc-00000"):                             13000,
		`connectd_connect_failures_total{namespace="prod",reason="refused",service="svc-00000"}`: 13,
		`connectd_srtt_seconds_count{namespace="prod",service="svc-00000"}`:                      13,
	})
}

func TestEndpointLeaves(t *testing.T) {
	w := newWorld(2, 2)
	w.traffic(1, 1, 10)
	w.traffic(1, 2, 20)
	e := New(w.sources())
	values(t, e)

	// What grew since the last scrape is in other, what was shown goes.
	w.traffic(1, 1, 5)
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 1 {
			return without(p, 1)
		}
		return p
	})
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 1, "svc-00000"): -1,
		endpointKey("endpoint_connections_total", 2, "svc-00000"): 20,
		restKey("endpoint_connections_total", "svc-00000"):        5,
		restKey("endpoint_active_connections", "svc-00000"):       5,
	})

	// Nothing is counted twice when its id comes back with another address.
	w.kernel.Endpoints[1] = EndpointStats{Connections: 7}
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 2 {
			c := *p
			moved := c.Endpoints[0]
			moved.ID = 1
			c.Endpoints = append([]plan.Endpoint{moved}, c.Endpoints[1])
			return &c
		}
		return p
	})
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 3, "svc-00001"): 7,
		restKey("endpoint_connections_total", "svc-00000"):        5,
		restKey("endpoint_active_connections", "svc-00000"):       0,
	})
}

func TestServiceLeaves(t *testing.T) {
	w := newWorld(2, 2)
	w.traffic(1, 1, 10)
	w.traffic(2, 3, 20)
	w.probes = map[lb.ServiceName]ProbeStats{w.desired.Services[0].Name: {Results: []uint64{4}}}
	e := New(w.sources())
	values(t, e)
	taken := e.collector.state.budget.taken
	all := w.desired

	w.traffic(1, 1, 5)
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 1 {
			return nil
		}
		return p
	})
	v := values(t, e)
	for key := range v {
		if strings.Contains(key, "svc-00000") {
			t.Errorf("%s is still there", key)
		}
	}
	expect(t, v, map[string]float64{
		restKey("endpoint_connections_total", "other"):                                           5,
		`connectd_connect_failures_total{namespace="",reason="refused",service="other"}`:         5,
		endpointKey("endpoint_connections_total", 3, "svc-00001"):                                20,
		`connectd_connect_duration_seconds_count{namespace="prod",service="svc-00001"}`:          20,
		`connectd_desired_objects{kind="service"}`:                                               1,
		`connectd_series_folded{block="service_state"}`:                                          0,
		`connectd_endpoints{namespace="prod",service="svc-00001",state="active"}`:                2,
		`connectd_connect_failures_total{namespace="prod",reason="refused",service="svc-00001"}`: 20,
	})

	// It comes back with the same ids and goes on.
	w.desired = all
	w.traffic(1, 1, 1)
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 1, "svc-00000"): 11,
		restKey("endpoint_connections_total", "other"):            5,
	})
	if got := e.collector.state.budget.taken; got != taken {
		t.Errorf("%d series taken, want %d as before", got, taken)
	}

	// All go, in the kernel too: nothing is remembered and nothing is taken.
	w.desired = &plan.Desired{}
	clear(w.kernel.Endpoints)
	clear(w.kernel.Services)
	values(t, e)
	s := e.collector.state
	if s.budget.taken != 0 || len(s.byID)+len(s.byName)+len(s.endpoints) != 0 {
		t.Errorf("%d series, %d+%d services, %d endpoints are left", s.budget.taken, len(s.byID), len(s.byName), len(s.endpoints))
	}
}

// With far more than there is room for, under churn: never too many series,
// no counter goes back, and all series of a name grow by exactly as much as
// the counters below them.
func TestBudget(t *testing.T) {
	const services, n = 1200, 20
	w := newWorld(services, n)
	all := w.desired
	w.probes = make(map[lb.ServiceName]ProbeStats)
	w.ejections = make(map[lb.ServiceName]uint64)
	for _, p := range all.Services {
		w.probes[p.Name] = ProbeStats{Results: make([]uint64, len(results)), Duration: Histogram{Counts: make([]uint64, durationBuckets)}}
	}
	e := New(w.sources())
	values(t, e) // idle services come first

	random := rand.New(rand.NewPCG(1, 2))
	before := make(map[string]float64)
	var grown, probed, ejected float64 // since the beginning
	var shown, shownProbes, shownEjected, shownHistogram float64
	for round := range 12 {
		for range 2000 {
			svc := random.IntN(min(services, 150*(round+1)))
			id := lb.EndpointID(svc*n + random.IntN(n) + 1)
			// Connections to what has gone may go on, but not begin.
			if _, had := w.kernel.Endpoints[id]; had || inPlan(w.desired, all.Services[svc].Name) {
				w.traffic(lb.ServiceID(svc+1), id, 1)
				grown++
			}
		}
		for range 500 {
			p := w.desired.Services[random.IntN(len(w.desired.Services))]
			w.probes[p.Name].Results[1]++
			w.ejections[p.Name]++
			probed++
			ejected++
		}
		v := values(t, e)
		if c := count(v); c > MaxSeries {
			t.Fatalf("round %d: %d series", round, c)
		}
		for key, x := range v {
			if was, ok := before[key]; ok && x < was && (strings.Contains(key, "_total") || strings.Contains(key, "seconds_count")) {
				t.Errorf("round %d: %s went from %v to %v", round, key, was, x)
			}
		}
		shown += growth(before, v, "connectd_endpoint_connections_total")
		shownHistogram += growth(before, v, "connectd_connect_duration_seconds_count")
		shownProbes += growth(before, v, "connectd_probes_total")
		shownEjected += growth(before, v, "connectd_ejections_total")
		if shown != grown || shownHistogram != grown || shownProbes != probed || shownEjected != ejected {
			t.Fatalf("round %d: shown %v and %v of %v connections, %v of %v probes, %v of %v ejections",
				round, shown, shownHistogram, grown, shownProbes, probed, shownEjected, ejected)
		}
		if got, want := sum(v, "connectd_endpoints"), float64(len(w.desired.Services)*n); got != want {
			t.Errorf("round %d: %v endpoints in all states, want %v", round, got, want)
		}
		before = v
		if round%3 == 2 { // some services end, at a quiet time
			for range 5 {
				gone := w.desired.Services[random.IntN(20)]
				w.replan(func(p *plan.Service) *plan.Service {
					if p == gone {
						return nil
					}
					return p
				})
				delete(w.probes, gone.Name)
				delete(w.ejections, gone.Name)
			}
		}
	}
	for _, b := range []string{"service_traffic", "service_state", "service_probe", "endpoint"} {
		if before[`connectd_series_folded{block="`+b+`"}`] == 0 {
			t.Errorf("nothing of block %s was folded: the test does not reach the limit", b)
		}
	}
}

// growth is by how much all series of a name grew; one that is new counts
// from zero.
func growth(before, now map[string]float64, name string) (total float64) {
	for key, x := range now {
		if strings.HasPrefix(key, name+"{") {
			total += x - before[key]
		}
	}
	return total
}

// First come, first kept: later and busier ones do not displace a series.
func TestFirstKept(t *testing.T) {
	w := newWorld(600, 5)
	w.traffic(600, 2996, 1)
	e := New(w.sources())
	values(t, e)
	for s := range 599 {
		w.traffic(lb.ServiceID(s+1), lb.EndpointID(5*s+1), 100)
	}
	v := values(t, e)
	expect(t, v, map[string]float64{
		endpointKey("endpoint_connections_total", 2996, "svc-00599"):                             1,
		`connectd_connect_failures_total{namespace="prod",reason="refused",service="svc-00599"}`: 1,
	})
	if sum(v, "connectd_endpoint_connections_total") != 59901 {
		t.Errorf("connections: %v, want 59901", sum(v, "connectd_endpoint_connections_total"))
	}
}

// A kernel that cannot be read leaves the series as they were, and is counted.
func TestKernelUnreadable(t *testing.T) {
	w := newWorld(1, 1)
	w.traffic(1, 1, 10)
	e := New(w.sources())
	values(t, e)
	w.kernel, w.kernelErr = Kernel{}, errKernel
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 1, "svc-00000"): 10,
		"connectd_kernel_read_errors_total":                       1,
	})
}

// Before the first plan, and with nothing but a plan, a scrape works.
func TestMinimalSources(t *testing.T) {
	var d *plan.Desired
	e := New(Sources{Desired: func() *plan.Desired { return d }})
	values(t, e)
	d = newWorld(2, 2).desired
	expect(t, values(t, e), map[string]float64{
		`connectd_endpoints{namespace="prod",service="svc-00001",state="active"}`: 2,
	})
}

// An id that names another address of the same service is another endpoint.
func TestAddressChanges(t *testing.T) {
	w := newWorld(1, 2)
	w.traffic(1, 1, 10)
	e := New(w.sources())
	values(t, e)
	w.kernel.Endpoints[1] = EndpointStats{Connections: 12}
	w.replan(func(p *plan.Service) *plan.Service {
		c := without(p, 2)
		c.Endpoints[0].Address = p.Endpoints[1].Address
		return c
	})
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 1, "svc-00000"): -1,
		endpointKey("endpoint_connections_total", 2, "svc-00000"): 12,
	})
}

// Connections that outlive their endpoint's place in the plan are still shown.
func TestActiveAfterLeaving(t *testing.T) {
	w := newWorld(2, 1)
	w.traffic(1, 1, 10)
	e := New(w.sources())
	values(t, e)
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 1 {
			return nil
		}
		return p
	})
	expect(t, values(t, e), map[string]float64{restKey("endpoint_active_connections", "other"): 10})
}
