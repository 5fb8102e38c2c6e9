package plan

import (
	"fmt"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// maxProblems bounds Desired.Problems; the rest is counted in a last line.
const maxProblems = 100

// assemble makes the next Desired of what was planned, or returns the last one
// when it is the same. What did not change is the same slice.
func (p *Planner) assemble() *Desired {
	last := p.last
	if last == nil {
		last = &Desired{}
	}
	next := &Desired{Revision: last.Revision + 1, Services: p.planned(last.Services), Ready: p.ready}
	next.Wake = p.sweepEjections()
	next.Local = p.planLocal(last.Local)
	next.Tasks = p.planTasks(next)
	next.Terminate, next.Watch = p.attention(last)
	next.Problems = p.problems()
	if slices.Equal(next.Problems, last.Problems) {
		next.Problems = last.Problems
	}
	next.Wake = sooner(next.Wake, p.wake())
	if p.last != nil && len(p.journal) == 0 && same(next.Services, last.Services) && same(next.Local, last.Local) && same(next.Tasks, last.Tasks) &&
		same(next.Terminate, last.Terminate) && same(next.Watch, last.Watch) && same(next.Problems, last.Problems) &&
		next.Wake.Equal(last.Wake) {
		return last
	}
	if len(p.journal) > 0 {
		p.log("clock").time(p.clock).end()
	}
	next.Journal = slices.Clone(p.journal)
	p.journal = shrink(p.journal)
	p.last = next
	return next
}

// planned returns the services in Desired: last with the changed ones
// replaced, or built anew when services came or went.
func (p *Planner) planned(last []*Service) []*Service {
	changed := p.changed
	p.changed = p.changed[:0]
	defer clear(changed)
	if p.regrouped {
		p.regrouped = false
		out := make([]*Service, 0, len(p.records))
		for _, r := range p.records {
			if r.planned != nil {
				out = append(out, r.planned)
			}
		}
		return out
	}
	if len(changed) == 0 {
		return last
	}
	out := slices.Clone(last)
	for _, r := range changed {
		i, _ := slices.BinarySearchFunc(out, r, func(s *Service, r *service) int { return s.Name.Compare(r.name) })
		out[i] = r.planned
	}
	return out
}

// attention lists the endpoints whose connections must end and those whose
// connections are to be counted.
func (p *Planner) attention(last *Desired) (terminate, watch []lb.EndpointID) {
	for r := range p.unsettled {
		for i := range r.endpoints {
			e := &r.endpoints[i]
			if p.terminates(r, e) {
				terminate = append(terminate, e.ID)
			}
			if watches(e) {
				watch = append(watch, e.ID)
			}
		}
	}
	for _, h := range p.endpointIDs.held {
		watch = append(watch, lb.EndpointID(h.id))
	}
	slices.Sort(terminate)
	slices.Sort(watch)
	if slices.Equal(terminate, last.Terminate) {
		terminate = last.Terminate
	}
	if slices.Equal(watch, last.Watch) {
		watch = last.Watch
	}
	return terminate, watch
}

// wake returns the nearest deadline of services and resting ids.
func (p *Planner) wake() (at time.Time) {
	for r := range p.unsettled {
		at = sooner(at, r.wake)
	}
	for _, ids := range []*pool{&p.namespaceIDs, &p.serviceIDs, &p.endpointIDs, &p.taskIDs} {
		at = sooner(at, ids.wake(p.now))
	}
	return at
}

func (p *Planner) problems() []string {
	if len(p.troubled)+len(p.taskProblems) == 0 {
		return nil
	}
	out := slices.Clone(p.taskProblems)
	for r := range p.troubled {
		for _, problem := range [...]string{r.problem, r.nameProblem} {
			if problem != "" {
				out = append(out, fmt.Sprintf("service %s: %s", r.name, problem))
			}
		}
	}
	slices.Sort(out)
	if more := len(out) - maxProblems; more > 0 {
		out = append(out[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return out
}

// shrink empties a buffer, and lets go of one that a first plan made large.
func shrink(b []byte) []byte {
	if cap(b) > 1<<16 {
		return nil
	}
	return b[:0]
}
