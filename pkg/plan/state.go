package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// scratch is memory reused between Steps.
type scratch struct {
	endpoints      []Endpoint
	members        []member
	freed, claimed []nameKey
}

// planService works out one admitted service from its catalog entry, what is
// known of its endpoints, and the time.
func (p *Planner) planService(r *service) {
	if r.traits != r.logged {
		p.logService(r)
	}
	before := r.endpoints
	endpoints, missing := p.mergeEndpoints(r)
	p.ejectForAll(r, endpoints)
	drained := p.drains[r.name]
	for i := range endpoints {
		p.judge(r, &endpoints[i], drained)
	}
	p.date(before, endpoints)
	next := Service{Service: r.spec, ID: r.id, NamespaceID: r.space, Names: r.names}
	crowd := census(endpoints)
	next.Panic = crowd.panics(r.spec.LoadBalancing.PanicThresholdPercent)
	next.LastResort = crowd.active == 0 && !next.Panic && p.hasLastResort(r, endpoints)
	p.setDeadlines(r, endpoints, next.LastResort)
	p.logDrains(before, endpoints)
	short := p.fillSlots(r, &next, endpoints)

	problem := ""
	switch {
	case missing > 0:
		problem = fmt.Sprintf("%d endpoints left out: all %d endpoint ids are in use", missing, p.endpointIDs.max)
	case short:
		problem = fmt.Sprintf("slot table cut short: all %d slots are in use", p.cfg.MaxSlots)
	}
	p.trouble(r, problem)
	p.publish(r, &next, endpoints)
	p.settle(r)
}

// mergeEndpoints brings together what the catalog lists and what was there
// before. The result lives in scratch memory. missing counts those for which
// no id was left.
func (p *Planner) mergeEndpoints(r *service) (out []Endpoint, missing int) {
	out = p.scratch.endpoints[:0]
	var listed []lb.Endpoint
	if r.listed {
		listed = r.spec.Endpoints
	}
	before := r.endpoints
	for len(listed) > 0 || len(before) > 0 {
		order := 1
		switch {
		case len(before) == 0:
			order = -1
		case len(listed) > 0:
			order = listed[0].Address.Compare(before[0].Address)
		}
		switch {
		case order < 0:
			if id := p.addEndpoint(r, &listed[0]); id != 0 {
				out = append(out, Endpoint{Endpoint: listed[0], ID: id})
			} else {
				missing++
			}
			listed = listed[1:]
		case order == 0:
			p.keepPast(r, &before[0], &listed[0])
			out = append(out, Endpoint{Endpoint: listed[0], ID: before[0].ID, DrainUntil: before[0].DrainUntil})
			listed, before = listed[1:], before[1:]
		default:
			if e, stays := p.remove(r, &before[0]); stays {
				out = append(out, e)
			}
			before = before[1:]
		}
	}
	p.scratch.endpoints = out
	return out, missing
}

// remove keeps an endpoint that has gone from the catalog until it has been
// seen without connections.
func (p *Planner) remove(r *service, was *Endpoint) (e Endpoint, stays bool) {
	info := &p.endpoints[was.ID]
	if was.State == lb.StateRemoved && info.idle {
		p.dropEndpoint(r, was)
		return e, false
	}
	info.idle = false
	return Endpoint{Endpoint: was.Endpoint, ID: was.ID, State: lb.StateRemoved, DrainUntil: was.DrainUntil}, true
}

// judge decides the state of one endpoint. What people decided goes before
// what its own side and probes say, and that before what callers saw.
func (p *Planner) judge(r *service, e *Endpoint, drained []netip.AddrPort) {
	probed := p.hear(r, e)
	if r.traits.probed {
		e.Verdict = p.endpoints[e.ID].verdict
	}
	ejected := p.ejectedNow(e.ID, forAll)
	e.EjectUntil = ejected.until
	switch {
	case e.State == lb.StateRemoved:
		e.Reason = "removed from the catalog"
	case slices.Contains(drained, e.Address):
		e.State, e.Reason = lb.StateDraining, DrainedByCommand
	case e.Draining:
		e.State, e.Reason = lb.StateDraining, "draining in the catalog"
	case e.Declared == lb.DeclaredPending:
		e.State, e.Reason = lb.StatePending, choose(e.Task != "", "not ready yet: its container is not healthy or does not listen", "not ready yet: so says its node")
	case !p.wasExposed(r, e):
		e.State, e.Reason = lb.StatePending, p.probeReason(e.ID, "no probe has succeeded yet")
	case probed && e.Verdict == lb.VerdictUnhealthy:
		e.State, e.Reason = lb.StateUnhealthy, p.probeReason(e.ID, "probes fail")
	case e.Declared == lb.DeclaredUnhealthy:
		e.State, e.Reason = lb.StateUnhealthy, choose(e.Task != "", "its container is unhealthy", "unhealthy, says its node")
	case !e.EjectUntil.IsZero():
		e.State, e.Reason = lb.StateEjected, choose(ejected.http, "callers get errors", "callers fail to connect")
	default:
		e.State, e.Reason = lb.StateActive, ""
	}
}

// hear takes in what an endpoint's own side says of it, and returns whether
// probes from here have a say. Once they have none, what they said is
// forgotten: should they be asked again, it would be long out of date.
func (p *Planner) hear(r *service, e *Endpoint) (probed bool) {
	info := &p.endpoints[e.ID]
	probed = r.traits.probed && e.Probed()
	was := *info
	if !e.Probed() && info.verdict != lb.VerdictUnknown {
		info.verdict = lb.VerdictUnknown
		delete(p.reasons, e.ID)
	}
	if !probed && e.State != lb.StateRemoved {
		switch {
		case e.Declared == lb.DeclaredHealthy:
			info.past = pastHealthy
		case e.Declared == lb.DeclaredUnhealthy && info.past == pastNever:
			info.past = pastExposed
		}
	}
	if *info != was {
		p.logVerdict(e.ID)
	}
	return probed
}

// date notes when each endpoint entered its state. Both lists are sorted by
// address.
func (p *Planner) date(before, now []Endpoint) {
	for i := range now {
		e := &now[i]
		for len(before) > 0 && before[0].Address.Compare(e.Address) < 0 {
			before = before[1:]
		}
		e.Since = p.now
		if len(before) > 0 && before[0].ID == e.ID && before[0].State == e.State {
			e.Since = before[0].Since
		}
	}
}

// wasExposed says whether an endpoint has ever been fit for clients. One that
// no probe found working, or that its own side has never called ready, is not,
// not even as a last resort.
func (p *Planner) wasExposed(r *service, e *Endpoint) bool {
	if p.endpoints[e.ID].past != pastNever {
		return true
	}
	return e.Declared != lb.DeclaredPending && !(r.traits.probed && e.Probed())
}

// hasLastResort says whether a draining endpoint could be used, were nothing
// else left.
func (p *Planner) hasLastResort(r *service, endpoints []Endpoint) bool {
	for i := range endpoints {
		if endpoints[i].State == lb.StateDraining && p.wasExposed(r, &endpoints[i]) {
			return true
		}
	}
	return false
}

// keepPast remembers that clients used an endpoint of which its own side now
// says that it is not ready, and forgets what another task was at the same
// address. What is only known from the journal stands there.
func (p *Planner) keepPast(r *service, was *Endpoint, now *lb.Endpoint) {
	info := &p.endpoints[was.ID]
	if was.Task != "" && now.Task != was.Task {
		info.verdict, info.past = lb.VerdictUnknown, pastNever
		delete(p.reasons, was.ID)
		p.logVerdict(was.ID)
		return
	}
	if now.Declared != lb.DeclaredPending || info.past != pastNever || p.restoring ||
		was.State == lb.StatePending || !p.wasExposed(r, was) {
		return
	}
	info.past = pastExposed
	p.logVerdict(was.ID)
}

// probeReason is what the checker said, or else the default.
func (p *Planner) probeReason(id lb.EndpointID, otherwise string) string {
	if reason := p.reasons[id]; reason != "" {
		return reason
	}
	return otherwise
}

// setDeadlines starts, keeps or clears the clock of endpoints going away.
// A draining endpoint that is being used as a last resort is not on its way
// out: its clock starts anew when it no longer is.
func (p *Planner) setDeadlines(r *service, endpoints []Endpoint, lastResort bool) {
	for i := range endpoints {
		e := &endpoints[i]
		going := e.State == lb.StateRemoved || e.State == lb.StateDraining && !lastResort
		switch {
		case !going || !r.traits.terminate:
			e.DrainUntil = time.Time{}
		case e.DrainUntil.IsZero():
			e.DrainUntil = p.now.Add(r.traits.deadline)
		}
	}
}

// publish makes the new plan of a service, or keeps the one before when they
// are equal; either way without copying what did not change.
func (p *Planner) publish(r *service, next *Service, endpoints []Endpoint) {
	was := r.planned
	if was == nil {
		p.regrouped = true
	}
	if was != nil && slices.Equal(was.Endpoints, endpoints) {
		next.Endpoints = was.Endpoints
	} else {
		next.Endpoints = slices.Clone(endpoints)
	}
	r.endpoints = next.Endpoints
	p.noteLocal(r, next)
	if was != nil && was.Service == next.Service && was.ID == next.ID && was.Panic == next.Panic && was.LastResort == next.LastResort &&
		same(was.Names, next.Names) && same(was.Endpoints, next.Endpoints) && same(was.SlotsV4, next.SlotsV4) && same(was.SlotsV6, next.SlotsV6) {
		return
	}
	r.planned = next
	if _, local := p.local[r]; local {
		p.localDirty = true
	}
	p.changed = append(p.changed, r)
}

// same says whether two slices are one, which is how unchanged parts are
// passed on.
func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// settle notes when the service must be looked at again, and whether its
// endpoints are to be watched or terminated.
func (p *Planner) settle(r *service) {
	r.wake = time.Time{}
	unsettled := false
	for i := range r.endpoints {
		e := &r.endpoints[i]
		if e.State != lb.StateActive && e.State != lb.StatePending {
			unsettled = true
		}
		for _, at := range [...]time.Time{e.DrainUntil, e.EjectUntil} {
			if p.now.Before(at) {
				unsettled = true
				r.wake = sooner(r.wake, at)
			}
		}
	}
	if unsettled {
		p.unsettled[r] = struct{}{}
	} else {
		delete(p.unsettled, r)
	}
}

// terminates says whether connections to an endpoint must end now. Draining
// ones are left to their deadline whatever a probe says: a server that shuts
// down in good order stops listening first.
func (p *Planner) terminates(r *service, e *Endpoint) bool {
	if !r.traits.terminate {
		return false
	}
	switch e.State {
	case lb.StateUnhealthy:
		return !r.planned.Panic && p.endpoints[e.ID].past == pastHealthy
	case lb.StateDraining, lb.StateRemoved:
		return !e.DrainUntil.IsZero() && !p.now.Before(e.DrainUntil)
	}
	return false
}

// watches says whether the count of an endpoint's connections is wanted.
func watches(e *Endpoint) bool { return e.State == lb.StateDraining || e.State == lb.StateRemoved }
