package metrics

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func TestDurationRecorder(t *testing.T) {
	if len(DurationBounds)+1 != durationBuckets {
		t.Fatal("durationBuckets does not fit DurationBounds")
	}
	var r DurationRecorder
	for _, d := range []time.Duration{-1, 0, time.Millisecond, time.Millisecond + 1, 10 * time.Second, time.Hour} {
		r.Observe(d)
	}
	h := r.Histogram()
	if want := []uint64{3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}; !slices.Equal(h.Counts, want) {
		t.Errorf("counts %v, want %v", h.Counts, want)
	}
	if h.SumMicroseconds != 3610002000 {
		t.Errorf("sum %d", h.SumMicroseconds)
	}
}

func TestProbeRecorder(t *testing.T) {
	w := newWorld(2, 1)
	r := NewProbeRecorder(results, func() *plan.Desired { return w.desired })
	a, b := w.desired.Services[0].Name, w.desired.Services[1].Name
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				r.Observe(a, "success", time.Millisecond)
				r.Observe(b, "timeout", time.Second)
			}
		})
	}
	wg.Wait()
	r.Observe(a, "nonsense", time.Millisecond)
	src := w.sources()
	src.Probes = r.Source()
	e := New(src)
	expect(t, values(t, e), map[string]float64{
		`connectd_probes_total{namespace="prod",result="success",service="svc-00000"}`:  400,
		`connectd_probes_total{namespace="prod",result="timeout",service="svc-00001"}`:  400,
		`connectd_probe_duration_seconds_count{namespace="prod",service="svc-00000"}`:   401,
		`connectd_probe_duration_seconds_sum{namespace="prod",service="svc-00001"}`:     400,
		`connectd_probes_total{namespace="prod",result="nonsense",service="svc-00000"}`: -1,
	})
	w.replan(func(p *plan.Service) *plan.Service {
		if p.Name == a {
			return nil
		}
		return p
	})
	values(t, e)
	if len(r.service) != 1 {
		t.Errorf("%d services remembered, want 1", len(r.service))
	}
}

func TestEjectionRecorder(t *testing.T) {
	var r EjectionRecorder
	service := func(i int, until ...time.Duration) *plan.Service {
		p := newWorld(3, 0).desired.Services[i]
		for n, u := range until {
			e := plan.Endpoint{ID: lb.EndpointID(10*i + n + 1)}
			if u > 0 {
				e.EjectUntil = at.Add(u)
			}
			p.Endpoints = append(p.Endpoints, e)
		}
		return p
	}
	quiet := service(1, 0, time.Hour)
	for step, s := range []struct {
		services []*plan.Service
		want     map[string]uint64
	}{
		{[]*plan.Service{service(0, 0, 0), quiet}, map[string]uint64{"svc-00001": 1}},
		{[]*plan.Service{service(0, 30, 0), quiet}, map[string]uint64{"svc-00000": 1, "svc-00001": 1}},
		{[]*plan.Service{service(0, 30, 30), quiet}, map[string]uint64{"svc-00000": 2, "svc-00001": 1}},
		{[]*plan.Service{service(0, 0, 30), quiet}, map[string]uint64{"svc-00000": 2, "svc-00001": 1}},
		{[]*plan.Service{service(0, 60, 90), quiet, service(2, 5)}, map[string]uint64{"svc-00000": 4, "svc-00001": 1, "svc-00002": 1}},
		{[]*plan.Service{quiet}, map[string]uint64{"svc-00001": 1}},
		{nil, map[string]uint64{}},
	} {
		r.Publish(&plan.Desired{Services: s.services})
		got := make(map[string]uint64)
		for name, n := range r.Totals() {
			got[name.DiscoveryName] = n
		}
		if !maps.Equal(got, s.want) {
			t.Errorf("step %d: %v, want %v", step, got, s.want)
		}
	}
}
