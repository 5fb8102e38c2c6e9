package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// replay brings the planner to where the journal ends. What it restored looks
// like a catalog that lists nothing but names, so that the first real one
// finds every service changed or gone.
func (p *Planner) replay(journal []byte) error {
	for n := 1; ; n++ {
		end := bytes.IndexByte(journal, '\n')
		if end < 0 {
			break
		}
		f := fields{rest: string(journal[:end])}
		if p.replayLine(&f); f.err == nil && f.rest != "" {
			f.fail("more than expected: %q", f.rest)
		}
		if f.err != nil {
			return fmt.Errorf("line %d: %w", n, f.err)
		}
		journal = journal[end+1:]
	}
	p.restoring = true
	p.dropExcess()
	return p.restoreRecords()
}

// dropExcess forgets ids above bounds that were lowered since: what had them
// gets new ones.
func (p *Planner) dropExcess() {
	for id := range p.byID {
		if uint32(id) > p.serviceIDs.max {
			p.forgetService(uint32(id))
		}
	}
	for id := range p.endpoints {
		if uint32(id) > p.endpointIDs.max {
			p.forgetEndpoint(lb.EndpointID(id))
		}
	}
}

func (p *Planner) restoreRecords() error {
	p.records = slices.DeleteFunc(slices.Clone(p.byID), func(r *service) bool { return r == nil })
	slices.SortFunc(p.records, compareRecords)
	for i, r := range p.records {
		ns := p.namespaces[r.name.Namespace]
		if ns == nil {
			return fmt.Errorf("service %s has no namespace id", r.name)
		}
		if i > 0 && p.records[i-1].name == r.name {
			return fmt.Errorf("service %s has two ids", r.name)
		}
		ns.users++
		r.space = ns.id
		r.logged = r.traits
		r.listed = true
		r.spec = &lb.Service{Name: r.name, Protocol: r.traits.protocol, Drain: lb.Drain{Deadline: r.traits.deadline, Terminate: r.traits.terminate}}
		p.catalog = append(p.catalog, r.spec)
	}
	for name, ns := range p.namespaces {
		if ns.users == 0 { // a crash tore the journal between its line and the service's
			delete(p.namespaces, name)
		}
	}
	p.restorePools()
	return nil
}

func (p *Planner) replayLine(f *fields) {
	switch verb := f.word(); verb {
	case kindNamespace:
		id, name := f.id(lb.MaxNamespaces), f.quoted()
		for other, ns := range p.namespaces {
			if uint32(ns.id)+1 == id && other != name {
				f.fail("namespace id %d belongs to %q", id, other)
			}
		}
		if f.err == nil {
			p.namespaces[name] = &namespace{id: lb.NamespaceID(id - 1)}
		}
	case kindService:
		p.replayService(f)
	case kindEndpoint:
		p.replayEndpoint(f)
	case kindTask:
		id, name := lb.TaskID(f.id(maxTasks)), f.quoted()
		if f.err == nil {
			p.forgetTask(id)
			if t := p.tasks[name]; t != nil {
				p.forgetTask(t.id)
			}
			p.tasks[name], p.taskNames[id] = &task{id: id}, name
		}
	case kindReady:
		id := lb.TaskID(f.id(maxTasks))
		if name, ok := p.taskNames[id]; ok {
			p.tasks[name].ready = true
		} else {
			f.fail("unknown task id %d", id)
		}
	case "gone", "free":
		p.replayGone(f, verb)
	case "verdict":
		p.replayVerdict(f)
	case "drain":
		if e, until := p.replayed(f), f.time(); f.err == nil {
			e.DrainUntil = until
		}
	case "eject":
		e := p.replayed(f)
		j := ejection{task: lb.TaskID(f.num(maxTasks)), times: uint32(f.num(1 << 31)), until: f.time()}
		if f.rest != "" {
			j.http = f.index("http") == 0
		}
		if f.err == nil {
			list := slices.DeleteFunc(p.ejections[e.ID], func(o ejection) bool { return o.task == j.task })
			p.ejections[e.ID] = append(list, j)
		}
	case "clock":
		p.clock = f.time()
	default:
		p.replayName(f, verb)
	}
}

func (p *Planner) replayName(f *fields, verb string) {
	namespace, name := f.quoted(), f.quoted()
	switch verb {
	case "vip":
		if addr := f.addr(); f.err == nil {
			p.vips.restore(nameKey{namespace, name}, addr)
		}
	case "vip-gone":
		p.vips.drop(nameKey{namespace, name})
	case "operator-drain", "operator-undrain":
		addr := f.addrPort()
		if f.err != nil {
			return
		}
		key := lb.ServiceName{Namespace: namespace, DiscoveryName: name}
		list := slices.DeleteFunc(p.drains[key], func(a netip.AddrPort) bool { return a == addr })
		if verb == "operator-drain" {
			list = append(list, addr)
		}
		if p.drains[key] = list; len(list) == 0 {
			delete(p.drains, key)
		}
	default:
		f.err = fmt.Errorf("unknown verb %q", verb)
	}
}

func (p *Planner) replayService(f *fields) {
	id := lb.ServiceID(f.id(maxID))
	name := lb.ServiceName{Namespace: f.quoted(), DiscoveryName: f.quoted()}
	t := traits{
		protocol:  lb.Protocol(f.num(255)),
		families:  uint8(f.num(uint64(family4 | family6))),
		probed:    f.either("probed", "unprobed"),
		terminate: f.either("terminate", "leave"),
		deadline:  f.duration(),
		table:     uint32(f.num(maxID)),
	}
	if t.table != 0 && !slices.Contains(primes[:], t.table) {
		f.fail("no table has %d slots", t.table)
	}
	if f.err != nil {
		return
	}
	for len(p.byID) <= int(id) {
		p.byID = append(p.byID, nil)
	}
	r := p.byID[id]
	if r == nil {
		r = &service{name: name, id: id}
		p.byID[id] = r
	}
	if r.name != name {
		f.fail("service id %d belongs to %s", id, r.name)
		return
	}
	r.traits = t
}

func (p *Planner) replayEndpoint(f *fields) {
	id, owner, addr := lb.EndpointID(f.id(maxID)), f.id(maxID), f.addrPort()
	if f.err == nil && (int(owner) >= len(p.byID) || p.byID[owner] == nil) {
		f.fail("unknown service id %d", owner)
	}
	if f.err == nil && p.owner(id) != nil {
		f.fail("endpoint id %d is in use", id)
	}
	if f.err != nil {
		return
	}
	r := p.byID[owner]
	p.own(id, r.id)
	e := Endpoint{Endpoint: lb.Endpoint{Address: addr, Weight: 1}, ID: id}
	i, found := searchAddr(r.endpoints, addr)
	if found {
		p.endpoints[r.endpoints[i].ID] = endpointInfo{}
		r.endpoints[i] = e
		return
	}
	r.endpoints = slices.Insert(r.endpoints, i, e)
}

// searchAddr finds an address in a sorted list. Journals are mostly sorted
// themselves: the end is looked at first.
func searchAddr(endpoints []Endpoint, addr netip.AddrPort) (int, bool) {
	if n := len(endpoints); n == 0 || endpoints[n-1].Address.Compare(addr) < 0 {
		return n, false
	}
	return slices.BinarySearchFunc(endpoints, addr, func(e Endpoint, a netip.AddrPort) int { return e.Address.Compare(a) })
}

// replayed reads an endpoint id that is in use.
func (p *Planner) replayed(f *fields) *Endpoint {
	id := lb.EndpointID(f.id(maxID))
	if f.err != nil {
		return nil
	}
	r := p.owner(id)
	if r != nil {
		for i := range r.endpoints {
			if r.endpoints[i].ID == id {
				return &r.endpoints[i]
			}
		}
	}
	f.fail("unknown endpoint id %d", id)
	return nil
}

func (p *Planner) replayVerdict(f *fields) {
	e := p.replayed(f)
	verdict := f.index(lb.VerdictUnknown.String(), lb.VerdictHealthy.String(), lb.VerdictUnhealthy.String())
	before := f.index(pasts[:]...)
	reason := f.quoted()
	if f.err != nil {
		return
	}
	info := &p.endpoints[e.ID]
	info.verdict, info.past = lb.Verdict(verdict), past(before)
	if reason == "" {
		delete(p.reasons, e.ID)
	} else {
		p.reasons[e.ID] = reason
	}
}

// replayGone takes an id out of use: "gone" sends it to rest, "free" ends
// that. Whether connections still count on it must be observed anew.
func (p *Planner) replayGone(f *fields, verb string) {
	kind, id := f.word(), f.id(maxID)
	var until time.Time
	if verb == "gone" {
		until = f.time()
	}
	ids := p.poolOf(kind)
	if f.err == nil && ids == nil {
		f.fail("unknown kind %q", kind)
	}
	if f.err != nil {
		return
	}
	ids.held = slices.DeleteFunc(ids.held, func(h heldID) bool { return h.id == id })
	if verb == "free" {
		return
	}
	ids.hold(id, until, kind != kindEndpoint)
	switch kind {
	case kindNamespace:
		for name, ns := range p.namespaces {
			if uint32(ns.id)+1 == id {
				delete(p.namespaces, name)
			}
		}
	case kindService:
		p.forgetService(id)
	case kindEndpoint:
		p.forgetEndpoint(lb.EndpointID(id))
	case kindTask:
		p.forgetTask(lb.TaskID(id))
	}
}

func (p *Planner) poolOf(kind string) *pool {
	switch kind {
	case kindNamespace:
		return &p.namespaceIDs
	case kindService:
		return &p.serviceIDs
	case kindEndpoint:
		return &p.endpointIDs
	case kindTask:
		return &p.taskIDs
	}
	return nil
}

func (p *Planner) forgetService(id uint32) {
	if int(id) >= len(p.byID) || p.byID[id] == nil {
		return
	}
	for _, e := range p.byID[id].endpoints {
		p.clearEndpoint(e.ID)
	}
	p.byID[id] = nil
}

func (p *Planner) forgetEndpoint(id lb.EndpointID) {
	r := p.owner(id)
	if r == nil {
		return
	}
	r.endpoints = slices.DeleteFunc(r.endpoints, func(e Endpoint) bool { return e.ID == id })
	p.clearEndpoint(id)
}

func (p *Planner) clearEndpoint(id lb.EndpointID) {
	p.endpoints[id] = endpointInfo{}
	delete(p.reasons, id)
	delete(p.ejections, id)
}

func (p *Planner) forgetTask(id lb.TaskID) {
	if name, ok := p.taskNames[id]; ok {
		delete(p.taskNames, id)
		delete(p.tasks, name)
	}
}

// restorePools finds which ids are free: those below the highest in use that
// are neither in use nor resting.
func (p *Planner) restorePools() {
	used := make(map[uint32]struct{}, len(p.endpoints))
	for id := range p.endpoints {
		if p.endpoints[id].service != 0 {
			used[uint32(id)] = struct{}{}
		}
	}
	p.endpointIDs.restore(used)
	clear(used)
	for id, r := range p.byID {
		if r != nil {
			used[uint32(id)] = struct{}{}
		}
	}
	p.serviceIDs.restore(used)
	clear(used)
	for _, ns := range p.namespaces {
		used[uint32(ns.id)+1] = struct{}{}
	}
	p.namespaceIDs.restore(used)
	clear(used)
	for id := range p.taskNames {
		used[uint32(id)] = struct{}{}
	}
	p.taskIDs.restore(used)
}

func (l *pool) restore(used map[uint32]struct{}) {
	l.held = slices.DeleteFunc(l.held, func(h heldID) bool { return h.id > l.max })
	slices.SortStableFunc(l.held, func(a, b heldID) int { return cmp.Compare(a.until.UnixNano(), b.until.UnixNano()) })
	for _, h := range l.held {
		used[h.id] = struct{}{}
	}
	for id := range used {
		l.next = max(l.next, id+1)
	}
	for id := uint32(1); id < l.next && id <= l.max; id++ {
		if _, ok := used[id]; !ok {
			l.free = append(l.free, id)
		}
	}
}
