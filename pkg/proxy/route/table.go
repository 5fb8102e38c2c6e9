// Package route is what the forwarder decides by: which service a VIP is, which
// endpoint a request goes to, whether a failed request may be tried again. No
// I/O, no clock, no log; time comes in as an argument.
package route

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// Table holds the routes of the plan in force. One goroutine publishes, any may
// read; a reader never waits for more than a lookup.
type Table struct {
	vips  vipMap
	tasks atomic.Pointer[[]*plan.Task] // by id

	room room

	mu        sync.RWMutex // guards what follows
	planned   *plan.Desired
	services  map[lb.ServiceName]*entry
	endpoints map[lb.EndpointID]*Endpoint
	leaving   map[*Endpoint]struct{} // those that no service names, with connections left
}

// entry is what the publisher remembers of a service.
type entry struct {
	http      *lb.HTTP // the latest
	state     *Service
	vips      []netip.AddrPort
	slot      *slot
	endpoints []*Endpoint
}

// New returns an empty table.
func New() *Table {
	t := &Table{
		room:      room{most: maxAccounts},
		planned:   &plan.Desired{},
		services:  make(map[lb.ServiceName]*entry),
		endpoints: make(map[lb.EndpointID]*Endpoint),
		leaving:   make(map[*Endpoint]struct{}),
	}
	t.tasks.Store(new([]*plan.Task))
	return t
}

// Route returns the route of a VIP and port, nil when it has none. Services that
// are no more the forwarder's keep one: a client that is connected already is
// served to its end.
func (t *Table) Route(vip netip.AddrPort) *Route {
	if s := t.vips.get(vip); s != nil {
		return s.route.Load()
	}
	return nil
}

// Task returns a task of the plan, nil when it is gone.
func (t *Table) Task(id lb.TaskID) *plan.Task {
	if tasks := *t.tasks.Load(); int(id) < len(tasks) {
		return tasks[id]
	}
	return nil
}

// Renew is the present state of what a request began with, for another try of
// it. What has gone meanwhile stays as it was.
func (t *Table) Renew(vip netip.AddrPort, r *Route, task *plan.Task) (*Route, *plan.Task) {
	if now := t.Route(vip); now != nil && now.State == r.State {
		r = now
	}
	if now := t.Task(task.ID); now != nil {
		task = now
	}
	return r, task
}

// Allows says whether a task may use the service of a route.
func Allows(task *plan.Task, r *Route) bool {
	return task.Scope[r.NamespaceID/64]&(1<<(r.NamespaceID%64)) != 0
}

// Publish makes d the plan that is routed by. Its cost is that of what changed,
// and a comparison of pointers for each service.
func (t *Table) Publish(d *plan.Desired) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publishTasks(d.Tasks)
	vips := t.vips.edit()
	prev, next := t.planned.Services, d.Services
	for len(prev) > 0 || len(next) > 0 {
		order := compare(prev, next)
		switch {
		case order < 0:
			t.remove(vips, prev[0].Name)
		case order > 0 || prev[0] != next[0]:
			t.publishService(vips, next[0])
		}
		if order <= 0 {
			prev = prev[1:]
		}
		if order >= 0 {
			next = next[1:]
		}
	}
	vips.publish()
	t.planned = d
	t.sweep()
	t.makeRoom(d.Tasks)
}

// compare says which of two lists, sorted by name, has the next service.
func compare(prev, next []*plan.Service) int {
	switch {
	case len(prev) == 0:
		return 1
	case len(next) == 0:
		return -1
	case prev[0] == next[0]:
		return 0
	}
	return prev[0].Name.Compare(next[0].Name)
}

func (t *Table) publishTasks(tasks []*plan.Task) {
	if slices.Equal(tasks, t.planned.Tasks) {
		return
	}
	var byID []*plan.Task
	for _, task := range tasks {
		for len(byID) <= int(task.ID) {
			byID = append(byID, nil)
		}
		byID[task.ID] = task
	}
	t.tasks.Store(&byID)
}

// publishService gives a service that is new or has changed its route.
func (t *Table) publishService(vips *vipEdit, s *plan.Service) {
	e := t.services[s.Name]
	if e != nil && (e.state.ID != s.ID || s.Protocol != lb.TCP) {
		t.remove(vips, s.Name)
		e = nil
	}
	if s.Protocol != lb.TCP || e == nil && s.HTTP == nil {
		return
	}
	if e == nil {
		e = &entry{state: &Service{Name: s.Name, ID: s.ID, accounts: accounts{room: &t.room}}, slot: new(slot)}
		t.services[s.Name] = e
	}
	former := !s.Proxied()
	if s.HTTP != nil {
		e.http = s.HTTP
	} else {
		// It may have clients of the time when it spoke HTTP.
		s = withHTTP(s, e.http)
	}
	t.leave(e.endpoints)
	e.endpoints = t.adopt(e.state, s)
	r := newRoute(e.state, s, e.endpoints)
	r.Former = former
	e.slot.route.Store(r)
	if now := vipsOf(s); !slices.Equal(now, e.vips) {
		vips.remove(e.vips, e.slot)
		vips.add(now, e.slot)
		e.vips = now
	}
}

// withHTTP is a service as it was when it spoke HTTP, with the endpoints it has
// now.
func withHTTP(s *plan.Service, h *lb.HTTP) *plan.Service {
	out, inner := *s, *s.Service
	inner.HTTP = h
	out.Service = &inner
	return &out
}

func vipsOf(s *plan.Service) []netip.AddrPort {
	fronts := s.Frontends()
	out := make([]netip.AddrPort, len(fronts))
	for i, f := range fronts {
		out[i] = f.Address
	}
	return out
}

// adopt returns the endpoints of a service in its order, with what is kept of
// those that are known.
func (t *Table) adopt(state *Service, s *plan.Service) []*Endpoint {
	out := make([]*Endpoint, len(s.Endpoints))
	for i := range s.Endpoints {
		p := &s.Endpoints[i]
		e := t.endpoints[p.ID]
		if e == nil || e.Address != p.Address {
			e = &Endpoint{ID: p.ID, Address: p.Address}
			t.endpoints[p.ID] = e
		}
		delete(t.leaving, e)
		e.weight.Store(max(1, int64(p.Weight)))
		e.server.Store(state.server(p.Owner))
		out[i] = e
	}
	return out
}

func (t *Table) remove(vips *vipEdit, name lb.ServiceName) {
	e := t.services[name]
	if e == nil {
		return
	}
	delete(t.services, name)
	e.state.retire()
	vips.remove(e.vips, e.slot)
	t.leave(e.endpoints)
}

// leave notes endpoints that go unless they are adopted.
func (t *Table) leave(endpoints []*Endpoint) {
	for _, e := range endpoints {
		t.leaving[e] = struct{}{}
	}
}

// sweep forgets endpoints that have gone from the plan and carry nothing any
// more: until then Active must tell of them, or package plan would give their
// id to another.
func (t *Table) sweep() {
	for e := range t.leaving {
		if e.active() > 0 {
			continue
		}
		delete(t.leaving, e)
		if t.endpoints[e.ID] == e {
			delete(t.endpoints, e.ID)
		}
	}
}

// Active is how many connections or requests, whichever are more, an endpoint
// has; idle connections count. It is 0 for one that is not known.
func (t *Table) Active(id lb.EndpointID) uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.endpoints[id]; e != nil {
		return e.active()
	}
	return 0
}

// Each visits the state of every service and endpoint, for metrics.
func (t *Table) Each(service func(*Service), endpoint func(*Endpoint)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, e := range t.services {
		service(e.state)
	}
	for _, e := range t.endpoints {
		endpoint(e)
	}
}
