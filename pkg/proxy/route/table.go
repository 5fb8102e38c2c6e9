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
	vips  atomic.Pointer[map[netip.AddrPort]*slot]
	tasks atomic.Pointer[map[lb.TaskID]*plan.Task]

	mu        sync.RWMutex // guards what follows
	services  map[lb.ServiceName]*entry
	endpoints map[lb.EndpointID]*Endpoint
	planned   []*plan.Task
}

// slot is the route of one VIP. A service that changes keeps its slots, so the
// map of thousands of them is copied only when VIPs come or go.
type slot struct{ route atomic.Pointer[Route] }

// entry is what the publisher remembers of a service.
type entry struct {
	planned *plan.Service
	http    *lb.HTTP // the latest
	state   *Service
	vips    []netip.AddrPort
	slots   []*slot
}

// New returns an empty table.
func New() *Table {
	t := &Table{services: make(map[lb.ServiceName]*entry), endpoints: make(map[lb.EndpointID]*Endpoint)}
	t.vips.Store(&map[netip.AddrPort]*slot{})
	t.tasks.Store(&map[lb.TaskID]*plan.Task{})
	return t
}

// Route returns the route of a VIP and port, nil when it has none. Services that
// are no more the forwarder's keep one: a client that is connected already is
// served to its end.
func (t *Table) Route(vip netip.AddrPort) *Route {
	if s := (*t.vips.Load())[vip]; s != nil {
		return s.route.Load()
	}
	return nil
}

// Task returns a task of the plan, nil when it is gone.
func (t *Table) Task(id lb.TaskID) *plan.Task { return (*t.tasks.Load())[id] }

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

// Publish makes d the plan that is routed by. Its cost is that of what changed.
func (t *Table) Publish(d *plan.Desired) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publishTasks(d.Tasks)
	moved := false // some VIP came or went
	seen := 0
	for _, s := range d.Services {
		e := t.services[s.Name]
		if !routed(s, e) {
			continue
		}
		seen++
		if e != nil && e.planned == s {
			continue
		}
		if e == nil || e.state.ID != s.ID {
			t.forget(e)
			e = &entry{state: &Service{Name: s.Name, ID: s.ID}}
			t.services[s.Name] = e
		}
		moved = t.update(e, s) || moved
	}
	if seen < len(t.services) {
		moved = t.prune(d) || moved
	}
	if moved {
		t.rebuild()
	}
}

// routed says whether a service is one that clients of the forwarder may be
// connected to: it speaks HTTP, or did until now.
func routed(s *plan.Service, before *entry) bool {
	return s.Protocol == lb.TCP && (s.HTTP != nil || before != nil && before.state.ID == s.ID)
}

func (t *Table) publishTasks(tasks []*plan.Task) {
	if slices.Equal(tasks, t.planned) {
		return
	}
	t.planned = tasks
	byID := make(map[lb.TaskID]*plan.Task, len(tasks))
	for _, task := range tasks {
		byID[task.ID] = task
	}
	t.tasks.Store(&byID)
}

// update gives a service its new route, and says whether its VIPs differ.
func (t *Table) update(e *entry, s *plan.Service) (moved bool) {
	gone := e.planned
	e.planned = s
	if s.HTTP != nil {
		e.http = s.HTTP
	} else {
		s = withHTTP(s, e.http)
	}
	r := t.route(e.state, s)
	r.Former = !e.planned.Proxied()
	if gone != nil {
		t.dropEndpoints(gone, s)
	}
	vips := vipsOf(s)
	if !slices.Equal(vips, e.vips) {
		e.vips, e.slots = vips, make([]*slot, len(vips))
		for i := range e.slots {
			e.slots[i] = &slot{}
		}
		moved = true
	}
	for _, v := range e.slots {
		v.route.Store(r)
	}
	return moved
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

// prune forgets services that have gone from the plan.
func (t *Table) prune(d *plan.Desired) (moved bool) {
	planned := make(map[lb.ServiceName]bool, len(d.Services))
	for _, s := range d.Services {
		if routed(s, t.services[s.Name]) {
			planned[s.Name] = true
		}
	}
	for name, e := range t.services {
		if !planned[name] {
			t.forget(e)
			delete(t.services, name)
			moved = true
		}
	}
	return moved
}

func (t *Table) forget(e *entry) {
	if e != nil {
		t.dropEndpoints(e.planned, nil)
	}
}

func (t *Table) dropEndpoints(gone, next *plan.Service) {
	stays := make(map[lb.EndpointID]bool)
	if next != nil {
		for i := range next.Endpoints {
			stays[next.Endpoints[i].ID] = true
		}
	}
	for i := range gone.Endpoints {
		if id := gone.Endpoints[i].ID; !stays[id] {
			delete(t.endpoints, id)
		}
	}
}

func (t *Table) rebuild() {
	vips := make(map[netip.AddrPort]*slot, len(t.services))
	for _, e := range t.services {
		for i, vip := range e.vips {
			vips[vip] = e.slots[i]
		}
	}
	t.vips.Store(&vips)
}

// Active is how many connections an endpoint has, those of requests in flight
// and idle ones; 0 for one that is not known.
func (t *Table) Active(id lb.EndpointID) uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.endpoints[id]; e != nil {
		return uint32(max(0, e.Open.Load()))
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
