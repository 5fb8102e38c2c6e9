package health

import (
	"net/netip"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// SetTargets probes the endpoints of d from now on: those of services with a
// health check, but removed ones and those that their own side speaks for. Targets that stay as they were are not
// disturbed; one whose check changed keeps its verdict, and its counts start
// again. A new one starts from the verdict in d. The cost is a pointer
// comparison for each service, and work for services that changed.
func (p *Prober) SetTargets(d *plan.Desired) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, after := p.services, d.Services
	p.services = d.Services
	var fresh []*target
	for len(before) > 0 || len(after) > 0 {
		if len(before) > 0 && len(after) > 0 && before[0] == after[0] {
			before, after = before[1:], after[1:]
			continue
		}
		switch order(before, after) {
		case -1:
			fresh = p.update(before[0], nil, fresh)
			before = before[1:]
		case 1:
			fresh = p.update(nil, after[0], fresh)
			after = after[1:]
		default:
			fresh = p.update(before[0], after[0], fresh)
			before, after = before[1:], after[1:]
		}
	}
	p.enqueue(fresh)
}

// order compares the names of the first services of two sorted lists, not
// both empty; an empty list is last.
func order(a, b []*plan.Service) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return a[0].Name.Compare(b[0].Name)
}

// update brings the targets of one service up to date and appends those to
// fresh that are new. before is nil for a new service, after for one that is
// gone.
func (p *Prober) update(before, after *plan.Service, fresh []*target) []*target {
	p.round++
	if after != nil && after.HealthCheck != nil {
		c := &check{HealthCheck: after.HealthCheck, service: after.Name, namespace: after.NamespaceID}
		for i := range after.Endpoints {
			e := &after.Endpoints[i]
			if e.State == lb.StateRemoved || !e.Probed() {
				continue
			}
			c := c
			if e.Task != "" {
				c = &check{c.HealthCheck, c.service, c.namespace, e.Task}
			}
			t := p.targets[e.ID]
			if t == nil || !t.check.equal(c) {
				t = p.replace(t, e, c)
				fresh = append(fresh, t)
			}
			t.round = p.round
		}
	}
	if before == nil || before.HealthCheck == nil {
		return fresh
	}
	for i := range before.Endpoints {
		if t := p.targets[before.Endpoints[i].ID]; t != nil && t.round != p.round {
			p.drop(t)
		}
	}
	return fresh
}

// replace makes a target of e, in the place of old if that is not nil.
func (p *Prober) replace(old *target, e *plan.Endpoint, c *check) *target {
	t := &target{id: e.ID, addr: e.Address, check: c, verdict: e.Verdict, reported: e.Verdict}
	if c.Port != 0 {
		t.addr = netip.AddrPortFrom(e.Address.Addr(), c.Port)
	}
	t.fresh = c.task != "" && e.State == lb.StatePending
	switch {
	case old == nil:
	case old.check.task != "" && old.check.task != c.task:
		p.drop(old) // another task is at its address, of which nothing is known
	default:
		// What d says of the endpoint may be older than what we know.
		t.verdict, t.reported, t.reason = old.verdict, old.reported, old.reason
		p.drop(old)
		p.notify(t)
	}
	p.targets[t.id] = t
	return t
}

// drop ends the probing of a target. A probe in flight ends by itself, within
// the check's timeout, and its result is void.
func (p *Prober) drop(t *target) {
	t.gone = true
	if !t.inFlight {
		p.sched.remove(t)
	}
	delete(p.targets, t.id)
}

// enqueue schedules new targets: at once if all of them fit into the slots,
// else spread over at most a second.
func (p *Prober) enqueue(fresh []*target) {
	now := p.now()
	for _, t := range fresh {
		t.due = now
		if len(fresh) > p.params.MaxConcurrent {
			t.due += spread(t.id, min(t.check.Interval, time.Second))
		}
		p.sched.add(t)
	}
	p.poke()
}
