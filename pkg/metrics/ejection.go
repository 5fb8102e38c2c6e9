package metrics

import (
	"maps"
	"sync"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// EjectionRecorder counts ejections by comparing each plan with the one
// before. The zero value is ready; all methods may be called at once.
type EjectionRecorder struct {
	mu     sync.Mutex
	last   []*plan.Service
	totals map[lb.ServiceName]uint64
}

// Publish looks at a new plan. Every plan must be shown, in order, or an
// ejection that began and ended in between is missed.
func (r *EjectionRecorder) Publish(d *plan.Desired) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.totals == nil {
		r.totals = make(map[lb.ServiceName]uint64)
	}
	before := r.last
	for _, now := range d.Services {
		for len(before) > 0 && before[0].Name.Compare(now.Name) < 0 {
			delete(r.totals, before[0].Name)
			before = before[1:]
		}
		var was *plan.Service
		if len(before) > 0 && before[0].Name == now.Name {
			was, before = before[0], before[1:]
		}
		if was == now {
			continue
		}
		if n := ejections(was, now); n > 0 {
			r.totals[now.Name] += n
		}
	}
	for _, gone := range before {
		delete(r.totals, gone.Name)
	}
	r.last = d.Services
}

// ejections counts endpoints whose time out begins, or begins anew, with now.
func ejections(was, now *plan.Service) (n uint64) {
	for i := range now.Endpoints {
		e := &now.Endpoints[i]
		if e.EjectUntil.IsZero() {
			continue
		}
		if before := find(was, e.ID); before == nil || e.EjectUntil.After(before.EjectUntil) {
			n++
		}
	}
	return n
}

// Totals returns the ejections of each service that had any, since start.
func (r *EjectionRecorder) Totals() map[lb.ServiceName]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.totals)
}
