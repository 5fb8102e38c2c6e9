package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"connectd/pkg/lb"
)

// maxMissing bounds what Missing lists; the rest is counted.
const maxMissing = 5

// Served is an endpoint that a local task serves, in any state but removed.
// Endpoint points into Service.Endpoints.
type Served struct {
	Service  *Service
	Endpoint *Endpoint
	// Exposed says that clients are sent to the endpoint, or were at some time.
	Exposed bool
}

// Serves lists what one local task serves, sorted by service and address.
func (d *Desired) Serves(task string) []Served {
	byTask := func(s Served, task string) int { return cmp.Compare(s.Endpoint.Task, task) }
	from, found := slices.BinarySearchFunc(d.Local, task, byTask)
	if !found {
		return nil
	}
	to := from
	for to < len(d.Local) && d.Local[to].Endpoint.Task == task {
		to++
	}
	return d.Local[from:to:to]
}

// Readiness says whether a task is ready, and if not why, for people.
func (d *Desired) Readiness(id lb.TaskID) (ok bool, detail string) {
	i := slices.IndexFunc(d.Tasks, func(t *Task) bool { return t.ID == id })
	switch {
	case i < 0:
		return false, "the task is not known any more"
	case d.Tasks[i].Ready:
		return true, ""
	}
	if detail = d.Missing(d.Tasks[i].Name); detail == "" {
		detail = "no catalog was read yet"
	}
	return false, detail
}

// Missing says what a task waits for until it is ready, for people; "" when
// all it serves is exposed.
func (d *Desired) Missing(task string) string {
	var out []string
	more := 0
	for _, s := range d.Serves(task) {
		switch {
		case s.Exposed:
		case len(out) == maxMissing:
			more++
		default:
			out = append(out, fmt.Sprintf("%s at %s: %s", s.Service.Name, s.Endpoint.Address, s.Endpoint.Reason))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, "; ")
}

// noteLocal keeps track of which services have endpoints of local tasks. A
// plan that equals the one before is no change.
func (p *Planner) noteLocal(r *service, next *Service) {
	local := slices.ContainsFunc(next.Endpoints, func(e Endpoint) bool { return e.Task != "" && e.State != lb.StateRemoved })
	_, was := p.local[r]
	switch {
	case local && !was:
		p.local[r] = struct{}{}
	case was && !local:
		delete(p.local, r)
		p.localDirty = true
	}
}

// planLocal lists what local tasks serve; last, when that has not changed.
func (p *Planner) planLocal(last []Served) []Served {
	if !p.localDirty {
		return last
	}
	p.localDirty = false
	var out []Served
	for r := range p.local {
		for i := range r.planned.Endpoints {
			e := &r.planned.Endpoints[i]
			if e.Task != "" && e.State != lb.StateRemoved {
				out = append(out, Served{r.planned, e, p.wasExposed(r, e)})
			}
		}
	}
	slices.SortFunc(out, func(a, b Served) int {
		return cmp.Or(cmp.Compare(a.Endpoint.Task, b.Endpoint.Task), a.Service.Name.Compare(b.Service.Name),
			a.Endpoint.Address.Compare(b.Endpoint.Address))
	})
	return out
}

// isReady says whether a task is ready, and remembers it for the task's life:
// what befalls it later is for clients to see, not for those who start it.
// Nothing is remembered of a task that serves nothing, for nothing was proven.
func (p *Planner) isReady(t *task, serves []Served) bool {
	switch {
	case t.ready:
		return true
	case !p.catalogKnown:
		return false
	case slices.ContainsFunc(serves, func(s Served) bool { return !s.Exposed }):
		return false
	}
	if len(serves) > 0 {
		t.ready = true
		p.log(kindReady).num(uint64(t.id)).end()
	}
	return true
}
