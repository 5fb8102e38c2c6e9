package metrics

import (
	"iter"
	"slices"
	"sync"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// ProbeRecorder counts what the prober reports. All methods may be called at
// once.
type ProbeRecorder struct {
	results []string
	desired func() *plan.Desired

	mu      sync.Mutex
	pruned  *plan.Desired // the plan that services were last compared with
	service map[lb.ServiceName]*probes
}

type probes struct {
	results []uint64
	counts  [durationBuckets]uint64
	micros  uint64
}

// NewProbeRecorder returns a recorder of the named results, which forgets
// services that are no longer in what desired returns.
func NewProbeRecorder(results []string, desired func() *plan.Desired) *ProbeRecorder {
	return &ProbeRecorder{results: results, desired: desired, service: make(map[lb.ServiceName]*probes)}
}

// Observe counts a probe that ended with result after d. A result that was
// not named is counted in the duration only.
func (r *ProbeRecorder) Observe(name lb.ServiceName, result string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.service[name]
	if p == nil {
		p = &probes{results: make([]uint64, len(r.results))}
		r.service[name] = p
	}
	if i := slices.Index(r.results, result); i >= 0 {
		p.results[i]++
	}
	p.counts[bucketOf(d)]++
	p.micros += uint64(max(d, 0).Microseconds())
}

// Source is what Sources.Probes wants. Observe waits while it is iterated.
func (r *ProbeRecorder) Source() ProbeSource {
	return ProbeSource{Results: r.results, Each: r.each()}
}

func (r *ProbeRecorder) each() iter.Seq2[lb.ServiceName, ProbeStats] {
	return func(yield func(lb.ServiceName, ProbeStats) bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.prune()
		for name, p := range r.service {
			stats := ProbeStats{Results: p.results, Duration: Histogram{p.counts[:], p.micros}}
			if !yield(name, stats) {
				return
			}
		}
	}
}

func (r *ProbeRecorder) prune() {
	d := r.desired()
	if d == nil || d == r.pruned {
		return
	}
	r.pruned = d
	for name := range r.service {
		if !inPlan(d, name) {
			delete(r.service, name)
		}
	}
}

func inPlan(d *plan.Desired, name lb.ServiceName) bool {
	_, ok := slices.BinarySearchFunc(d.Services, name, func(p *plan.Service, n lb.ServiceName) int {
		return p.Name.Compare(n)
	})
	return ok
}
