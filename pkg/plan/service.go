package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// service is what the planner remembers of one service, from its first
// appearance until its last removed endpoint has left.
type service struct {
	name    lb.ServiceName
	spec    *lb.Service // as listed last; never nil
	listed  bool        // in the catalog now
	retired bool
	dirty   bool
	id      lb.ServiceID // 0: left out
	space   lb.NamespaceID
	traits  traits
	logged  traits // what the journal says

	named   *lb.Service // whose names are claimed; nil is none
	names   []Name
	wanted  []Name // between claiming and addressing
	renamed bool

	planned   *Service
	endpoints []Endpoint // planned.Endpoints, or from the journal
	wake      time.Time

	nameProblem, problem string
}

// traits is what must be known of a service after a restart, even when it has
// gone from the catalog meanwhile.
type traits struct {
	protocol  lb.Protocol
	families  uint8         // sticky
	probed    bool          // had a health check
	terminate bool          // drain.Terminate
	deadline  time.Duration // drain.Deadline
	table     uint32        // size of its source hash tables, 0 is none: another size moves every key
}

// endpointInfo is kept per EndpointID; a catalog of 100,000 endpoints costs
// 800 kB of it.
type endpointInfo struct {
	service lb.ServiceID // 0: the id is not in use
	verdict lb.Verdict
	past    past
	idle    bool // removed, and seen without connections since
}

// past is whether an endpoint was ever offered to clients.
type past uint8

const (
	pastNever   past = iota
	pastExposed      // while the service had no health check
	pastHealthy      // a probe succeeded, here or on its own side: it may be declared dead
)

var pasts = [...]string{"never", "exposed", "healthy"}

func compareRecords(a, b *service) int { return a.name.Compare(b.name) }

func (p *Planner) find(name lb.ServiceName) *service {
	i, ok := slices.BinarySearchFunc(p.records, name, func(r *service, n lb.ServiceName) int { return r.name.Compare(n) })
	if !ok {
		return nil
	}
	return p.records[i]
}

// compareCatalog marks what differs from the catalog before.
func (p *Planner) compareCatalog() {
	var added []*service
	merge(p.catalog, p.nextCatalog, func(a, b *lb.Service) int { return a.Name.Compare(b.Name) }, func(prev, next *lb.Service) {
		if next == nil {
			r := p.find(prev.Name)
			r.listed = false
			p.touch(r)
			return
		}
		r := p.find(next.Name)
		if r == nil {
			r = &service{name: next.Name}
			added = append(added, r)
		}
		r.spec, r.listed = next, true
		p.touch(r)
	})
	p.catalog = p.nextCatalog
	if len(added) < 16 {
		for _, r := range added {
			i, _ := slices.BinarySearchFunc(p.records, r, compareRecords)
			p.records = slices.Insert(p.records, i, r)
		}
		return
	}
	p.records = append(p.records, added...)
	slices.SortFunc(p.records, compareRecords)
}

// admit gives a listed service its ids, or leaves it out with a reason, and
// takes over what its catalog entry says.
func (p *Planner) admit(r *service) {
	if !r.listed {
		return
	}
	if r.id == 0 && !p.identify(r) {
		return
	}
	s := r.spec
	if s.HealthCheck != nil && !r.traits.probed {
		p.keepExposed(r)
	}
	r.traits = traits{
		protocol:  s.Protocol,
		families:  r.traits.families,
		probed:    s.HealthCheck != nil,
		terminate: s.Drain.Terminate,
		deadline:  s.Drain.Deadline,
		table:     tableSize(s, r.traits.table),
	}
}

func (p *Planner) identify(r *service) bool {
	ns := p.namespaces[r.name.Namespace]
	switch {
	case ns == nil && p.namespaceIDs.empty():
		p.trouble(r, fmt.Sprintf("left out: all %d namespace ids are in use", p.namespaceIDs.max))
		return false
	case p.serviceIDs.empty():
		p.trouble(r, fmt.Sprintf("left out: all %d service ids are in use", p.serviceIDs.max))
		return false
	case ns == nil:
		ns = &namespace{id: lb.NamespaceID(p.namespaceIDs.take() - 1)}
		p.namespaces[r.name.Namespace] = ns
		p.tasksDirty = true
		p.log(kindNamespace).num(uint64(ns.id) + 1).quote(r.name.Namespace).end()
	}
	ns.users++
	r.id, r.space = lb.ServiceID(p.serviceIDs.take()), ns.id
	for len(p.byID) <= int(r.id) {
		p.byID = append(p.byID, nil)
	}
	p.byID[r.id] = r
	return true
}

// keepExposed remembers the endpoints that clients use when a health check is
// added to a service, so that they are not taken away until first probed. Of
// those from the journal the state is not known, and their own side is asked.
func (p *Planner) keepExposed(r *service) {
	for i := range r.endpoints {
		e := &r.endpoints[i]
		info := &p.endpoints[e.ID]
		if info.past != pastNever || e.State == lb.StatePending || p.restoring && declaresPending(r.spec, e.Address) {
			continue
		}
		info.past = pastExposed
		p.logVerdict(e.ID)
	}
}

func declaresPending(s *lb.Service, addr netip.AddrPort) bool {
	i, found := slices.BinarySearchFunc(s.Endpoints, addr, func(e lb.Endpoint, a netip.AddrPort) int { return e.Address.Compare(a) })
	return found && s.Endpoints[i].Declared == lb.DeclaredPending
}

// retire forgets a service none of whose endpoints is left.
func (p *Planner) retire(r *service) {
	r.retired = true
	delete(p.unsettled, r)
	delete(p.troubled, r)
	if _, local := p.local[r]; local {
		delete(p.local, r)
		p.localDirty = true
	}
	if r.id == 0 {
		return
	}
	p.regrouped = true
	p.slotsInUse -= r.slots()
	r.planned = nil
	p.byID[r.id] = nil
	p.release(&p.serviceIDs, kindService, uint32(r.id), true)
	ns := p.namespaces[r.name.Namespace]
	if ns.users--; ns.users == 0 {
		delete(p.namespaces, r.name.Namespace)
		p.tasksDirty = true
		p.release(&p.namespaceIDs, kindNamespace, uint32(ns.id)+1, true)
	}
}

func (r *service) slots() int {
	if r.planned == nil {
		return 0
	}
	return len(r.planned.SlotsV4) + len(r.planned.SlotsV6)
}

// trouble sets or, with an empty text, clears what is wrong with a service.
func (p *Planner) trouble(r *service, problem string) {
	r.problem = problem
	if problem == "" && r.nameProblem == "" {
		delete(p.troubled, r)
		return
	}
	p.troubled[r] = struct{}{}
}
