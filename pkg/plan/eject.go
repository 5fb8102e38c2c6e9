package plan

import (
	"maps"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// forAll stands in the place of a task where an endpoint is ejected for every
// caller.
const forAll lb.TaskID = 0

// ejection is one task's, or everybody's, record of an endpoint. It outlives
// the ejection itself for as long as its multiplier counts.
type ejection struct {
	task  lb.TaskID
	times uint32 // multiplier of the latest ejection
	until time.Time
	http  bool // the latest was for requests
}

// caller is a task and an endpoint it calls.
type caller struct {
	task     lb.TaskID
	endpoint lb.EndpointID
}

// takeStrikes ejects endpoints for single tasks. How long a run of failures is
// those who report it count, so a run that ended (count 0) needs nothing; and
// as a run of connects goes on after an ejection, one more failure ejects
// again. A run of requests begins anew, as in Envoy: requests that were under
// way when the endpoint was ejected go on failing, and their number says
// nothing of what comes after.
func (p *Planner) takeStrikes() {
	for _, s := range p.strikes {
		p.takeStrike(s)
	}
	p.strikes = p.strikes[:0]
}

func (p *Planner) takeStrike(s lb.Strike) {
	r := p.owner(s.Endpoint)
	if _, ok := p.taskNames[s.Task]; !ok || r == nil || !r.listed {
		return
	}
	o := r.spec.Outlier
	if s.HTTP {
		s.Count = p.freshFailures(&s)
	}
	if o.ConsecutiveFailures == 0 || o.BaseEjection <= 0 || s.Count < o.ConsecutiveFailures {
		return
	}
	i := slices.IndexFunc(r.endpoints, func(e Endpoint) bool { return e.ID == s.Endpoint })
	if i < 0 || r.endpoints[i].State != lb.StateActive && r.endpoints[i].State != lb.StateUnhealthy {
		return
	}
	taken := 0
	for k := range r.endpoints {
		if p.isEjected(r.endpoints[k].ID, forAll) || p.isEjected(r.endpoints[k].ID, s.Task) {
			taken++
			if k == i {
				return
			}
		}
	}
	if taken >= maxEjected(r) {
		return
	}
	if s.HTTP {
		p.spent[caller{s.Task, s.Endpoint}] += s.Count
	}
	p.eject(r, s.Endpoint, ejection{task: s.Task, http: s.HTTP})
	p.touch(r)
}

// freshFailures is how many failed requests in a row have not yet led to an
// ejection. All up to its end are spent; a count that fell is of another run,
// in which none is.
func (p *Planner) freshFailures(s *lb.Strike) uint32 {
	key := caller{s.Task, s.Endpoint}
	spent := p.spent[key]
	switch {
	case s.Count > 0 && (p.isEjected(s.Endpoint, forAll) || p.isEjected(s.Endpoint, s.Task)):
		spent = s.Count
	case s.Count < spent:
		spent = 0
	}
	if spent == 0 {
		delete(p.spent, key)
	} else {
		p.spent[key] = spent
	}
	return s.Count - spent
}

// maxEjected is how many endpoints of a service may be ejected at once.
func maxEjected(r *service) int {
	return max(1, len(r.spec.Endpoints)*int(r.spec.Outlier.MaxEjectionPercent)/100)
}

// ejectForAll is the half rule: one client alone may be cut off itself, so it
// takes two, or one and a probe or its own side, to eject an endpoint for everybody.
func (p *Planner) ejectForAll(r *service, endpoints []Endpoint) {
	if len(p.ejections) == 0 {
		return
	}
	taken := 0
	for i := range endpoints {
		if p.isEjected(endpoints[i].ID, forAll) {
			taken++
		}
	}
	for i := range endpoints {
		e := &endpoints[i]
		if e.State == lb.StateRemoved || taken >= maxEjected(r) || p.isEjected(e.ID, forAll) {
			continue
		}
		tasks, together := p.ejectedBy(e.ID)
		dead := e.Declared == lb.DeclaredUnhealthy || r.traits.probed && e.Probed() && p.endpoints[e.ID].verdict == lb.VerdictUnhealthy
		if tasks >= 2 || tasks == 1 && dead {
			p.eject(r, e.ID, together)
			taken++
		}
	}
}

// ejectedBy counts the tasks that have an endpoint ejected for themselves now,
// and returns the ejection for all that takes in theirs: it ends no sooner,
// and is for requests if one of theirs is.
func (p *Planner) ejectedBy(id lb.EndpointID) (tasks int, together ejection) {
	together.task = forAll
	for _, j := range p.ejections[id] {
		if j.task != forAll && p.now.Before(j.until) {
			tasks++
			together.http = together.http || j.http
			if together.until.Before(j.until) {
				together.until = j.until
			}
		}
	}
	return tasks, together
}

// eject starts an ejection of the base time, times how often it happened; as
// in Envoy every base time without one takes one off. It ends no sooner than
// next.until.
func (p *Planner) eject(r *service, id lb.EndpointID, next ejection) {
	list := p.ejections[id]
	i := slices.IndexFunc(list, func(j ejection) bool { return j.task == next.task })
	if i < 0 {
		i = len(list)
		list = append(list, ejection{task: next.task})
		p.ejections[id] = list
	}
	j := &list[i]
	j.http = next.http
	o := r.spec.Outlier
	most := max(o.MaxEjection, o.BaseEjection)
	j.times = j.decayed(p.now, o.BaseEjection) + 1
	length := most
	if int64(j.times) <= int64(most/o.BaseEjection) {
		length = time.Duration(j.times) * o.BaseEjection
	}
	j.until = p.now.Add(max(length, next.until.Sub(p.now)))
	p.logEjection(id, j)
}

func (j *ejection) decayed(now time.Time, base time.Duration) uint32 {
	quiet := now.Sub(j.until)
	if quiet <= 0 || j.times == 0 {
		return j.times
	}
	return j.times - uint32(min(int64(quiet/base), int64(j.times)))
}

// ejectedNow returns the ejection that stands, or the zero value, whose end is
// none.
func (p *Planner) ejectedNow(id lb.EndpointID, by lb.TaskID) ejection {
	for _, j := range p.ejections[id] {
		if j.task == by && p.now.Before(j.until) {
			return j
		}
	}
	return ejection{}
}

func (p *Planner) isEjected(id lb.EndpointID, by lb.TaskID) bool {
	return !p.ejectedNow(id, by).until.IsZero()
}

// sweepEjections forgets what no longer counts: of tasks that are gone, and
// those whose multiplier has decayed. It returns when the next ejection ends.
func (p *Planner) sweepEjections() (wake time.Time) {
	maps.DeleteFunc(p.spent, func(c caller, _ uint32) bool {
		_, lives := p.taskNames[c.task]
		return !lives || p.owner(c.endpoint) == nil
	})
	for id, list := range p.ejections {
		r := p.owner(id)
		list = slices.DeleteFunc(list, func(j ejection) bool {
			if p.now.Before(j.until) {
				_, lives := p.taskNames[j.task]
				return j.task != forAll && !lives
			}
			base := r.spec.Outlier.BaseEjection
			return base <= 0 || j.decayed(p.now, base) == 0
		})
		for _, j := range list {
			if p.now.Before(j.until) {
				wake = sooner(wake, j.until)
			}
		}
		if len(list) == 0 {
			delete(p.ejections, id)
		} else {
			p.ejections[id] = list
		}
	}
	return wake
}
