package plan

import (
	"time"

	"connectd/pkg/lb"
)

// quarantine is how long an id rests after it left Desired. Readers in the
// kernel hold an id for microseconds; the rest is for user space, which keys
// snapshots and counters on ids.
const quarantine = 10 * time.Second

// maxID is the highest id there can be, for arrays are as long as that.
const maxID = 1 << 22

// pool gives out ids from 1 up. An id never used goes before one used
// earlier, and of those the one that has rested longest goes first.
type pool struct {
	max  uint32
	next uint32 // lowest id never given
	free []uint32
	held []heldID // resting, oldest first
}

type heldID struct {
	id    uint32
	idle  bool // no connection counts on it, by the latest observation
	until time.Time
}

func newPool(most int) pool {
	if most <= 0 || most > maxID {
		most = maxID
	}
	return pool{max: uint32(most), next: 1}
}

func (l *pool) empty() bool { return l.next > l.max && len(l.free) == 0 }

// take returns 0 when every id is in use or resting.
func (l *pool) take() uint32 {
	if l.next <= l.max {
		l.next++
		return l.next - 1
	}
	if len(l.free) == 0 {
		return 0
	}
	id := l.free[0]
	l.free = l.free[1:]
	return id
}

func (l *pool) hold(id uint32, until time.Time, idle bool) {
	l.held = append(l.held, heldID{id, idle, until})
}

// expire frees the ids that have rested and are idle, and tells each.
func (l *pool) expire(now time.Time, freed func(id uint32)) {
	kept := l.held[:0]
	for _, h := range l.held {
		if h.idle && !now.Before(h.until) {
			l.free = append(l.free, h.id)
			freed(h.id)
		} else {
			kept = append(kept, h)
		}
	}
	l.held = kept
}

// wake returns when the next id has rested, or zero. One that has, and waits
// to become idle, needs an observation and no clock.
func (l *pool) wake(now time.Time) time.Time {
	var at time.Time
	for _, h := range l.held {
		if now.Before(h.until) {
			at = sooner(at, h.until)
		}
	}
	return at
}

// freeIDs ends quarantines that are over.
func (p *Planner) freeIDs() {
	free := func(kind string) func(uint32) {
		return func(id uint32) { p.log("free").word(kind).num(uint64(id)).end() }
	}
	p.namespaceIDs.expire(p.now, free(kindNamespace))
	p.serviceIDs.expire(p.now, free(kindService))
	p.endpointIDs.expire(p.now, free(kindEndpoint))
	p.taskIDs.expire(p.now, free(kindTask))
}

// release sends an id to rest.
func (p *Planner) release(ids *pool, kind string, id uint32, idle bool) {
	until := p.now.Add(quarantine)
	ids.hold(id, until, idle)
	p.log("gone").word(kind).num(uint64(id)).time(until).end()
}

// addEndpoint gives an endpoint its id; 0 means there is none left.
func (p *Planner) addEndpoint(r *service, e *lb.Endpoint) lb.EndpointID {
	id := lb.EndpointID(p.endpointIDs.take())
	if id == 0 {
		return 0
	}
	p.own(id, r.id)
	p.log(kindEndpoint).num(uint64(id)).num(uint64(r.id)).addrPort(e.Address).end()
	return id
}

func (p *Planner) own(id lb.EndpointID, s lb.ServiceID) {
	for len(p.endpoints) <= int(id) {
		p.endpoints = append(p.endpoints, endpointInfo{})
	}
	p.endpoints[id] = endpointInfo{service: s}
}

// dropEndpoint forgets an endpoint that left Desired. It was seen idle, and
// the quarantine asks for that once more.
func (p *Planner) dropEndpoint(r *service, e *Endpoint) {
	p.endpoints[e.ID] = endpointInfo{}
	delete(p.reasons, e.ID)
	delete(p.ejections, e.ID)
	p.undrain(r.name, e.Address)
	p.release(&p.endpointIDs, kindEndpoint, uint32(e.ID), true)
}

// sooner returns the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
