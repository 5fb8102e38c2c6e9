package plan

import (
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
}

// takeStrikes ejects endpoints for single tasks. How long a run of failures is
// the kernel counts, so a run that ended (count 0) needs nothing; and as the
// run goes on after an ejection, one more failure ejects again.
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
	p.eject(r, s.Endpoint, s.Task, time.Time{})
	p.touch(r)
}

// maxEjected is how many endpoints of a service may be ejected at once.
func maxEjected(r *service) int {
	return max(1, len(r.spec.Endpoints)*int(r.spec.Outlier.MaxEjectionPercent)/100)
}

// ejectForAll is the half rule: one client alone may be cut off itself, so it
// takes two, or one and a probe, to eject an endpoint for everybody.
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
		tasks, latest := p.ejectedBy(e.ID)
		dead := r.traits.probed && p.endpoints[e.ID].verdict == lb.VerdictUnhealthy
		if tasks >= 2 || tasks == 1 && dead {
			p.eject(r, e.ID, forAll, latest)
			taken++
		}
	}
}

// ejectedBy counts the tasks that have an endpoint ejected for themselves now.
func (p *Planner) ejectedBy(id lb.EndpointID) (tasks int, latest time.Time) {
	for _, j := range p.ejections[id] {
		if j.task != forAll && p.now.Before(j.until) {
			tasks++
			if latest.Before(j.until) {
				latest = j.until
			}
		}
	}
	return tasks, latest
}

// eject starts an ejection of the base time, times how often it happened; as
// in Envoy every base time without one takes one off. It ends no sooner than
// atLeast: an ejection for all takes in those of single tasks.
func (p *Planner) eject(r *service, id lb.EndpointID, by lb.TaskID, atLeast time.Time) {
	list := p.ejections[id]
	i := slices.IndexFunc(list, func(j ejection) bool { return j.task == by })
	if i < 0 {
		i = len(list)
		list = append(list, ejection{task: by})
		p.ejections[id] = list
	}
	j := &list[i]
	o := r.spec.Outlier
	most := max(o.MaxEjection, o.BaseEjection)
	j.times = j.decayed(p.now, o.BaseEjection) + 1
	length := most
	if int64(j.times) <= int64(most/o.BaseEjection) {
		length = time.Duration(j.times) * o.BaseEjection
	}
	j.until = p.now.Add(max(length, atLeast.Sub(p.now)))
	p.logEjection(id, j)
}

func (j *ejection) decayed(now time.Time, base time.Duration) uint32 {
	quiet := now.Sub(j.until)
	if quiet <= 0 || j.times == 0 {
		return j.times
	}
	return j.times - uint32(min(int64(quiet/base), int64(j.times)))
}

// ejectedUntil returns the end of the latest ejection, or zero.
func (p *Planner) ejectedUntil(id lb.EndpointID, by lb.TaskID) time.Time {
	for _, j := range p.ejections[id] {
		if j.task == by {
			return j.until
		}
	}
	return time.Time{}
}

func (p *Planner) isEjected(id lb.EndpointID, by lb.TaskID) bool {
	return p.now.Before(p.ejectedUntil(id, by))
}

// sweepEjections forgets what no longer counts: of tasks that are gone, and
// those whose multiplier has decayed. It returns when the next ejection ends.
func (p *Planner) sweepEjections() (wake time.Time) {
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
