package metrics

import (
	"net/netip"

	dto "github.com/prometheus/client_model/go"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var numStates = len(lb.States())

// service is what the exporter remembers of one service, or of all services
// that have to share series.
type service struct {
	name lb.ServiceName
	id   lb.ServiceID
	plan *plan.Service // nil: not in the plan any more
	seen uint64        // the sync that last found it
	used bool          // has had traffic: either of these

	carried  bool // connections that the kernel leads to endpoints
	requests bool // that connectd has seen
	own      [blocks]bool

	states    []int // endpoints by lb.State
	panicking int   // of other: how many

	traffic account // failures, connect time, srtt
	probes  account
	ejected account
	http    httpAccount

	// Of endpoints that have no series of their own.
	rest       [endpointCounters]uint64
	restActive uint64
	restHTTP   []uint64 // nil: none
	restGRPC   []uint64 // the same of their calls

	labels     labels
	httpLabels *httpLabels // nil until first shown
}

// labels are those of a service's series, made when first shown.
type labels struct {
	base     []*dto.LabelPair
	states   [][]*dto.LabelPair
	failures [][]*dto.LabelPair
	probes   [][]*dto.LabelPair
	rest     []*dto.LabelPair
}

// endpoint is what the exporter remembers of one endpoint that has had
// traffic or has series of its own.
type endpoint struct {
	address netip.AddrPort
	service *service
	plan    *plan.Service // in which it was last looked for
	listed  bool          // and found
	own     bool
	active  uint64
	mark    [endpointCounters]uint64
	shown   [endpointCounters]uint64
	labels  []*dto.LabelPair

	ownHTTP    bool
	ownGRPC    bool
	http       httpAccount
	grpc       account
	httpLabels *httpEndpointLabels // nil until first shown
}

// sync takes over a new plan.
func (s *state) sync(d *plan.Desired) {
	if d == s.desired {
		return
	}
	s.desired = d
	s.syncs++
	s.order = s.order[:0]
	s.numEndpoints = 0
	for _, p := range d.Services {
		svc := s.serviceOf(p)
		svc.seen = s.syncs
		s.order = append(s.order, svc)
		s.numEndpoints += len(p.Endpoints)
		if svc.plan == p {
			continue
		}
		svc.plan = p
		svc.count()
		for i := range p.Endpoints {
			s.claim(p.Endpoints[i].ID, svc)
		}
	}
	for _, svc := range s.byID {
		if svc.seen != s.syncs && svc.plan != nil {
			s.release(svc)
		}
	}
	for id, e := range s.endpoints {
		s.check(id, e)
	}
}

// serviceOf finds or makes the service. An id given out anew makes a new one.
func (s *state) serviceOf(p *plan.Service) *service {
	svc := s.byID[p.ID]
	if svc != nil && svc.name == p.Name {
		if svc.plan == nil { // it is back
			s.byName[p.Name] = svc
		}
		return svc
	}
	if svc != nil && svc.plan != nil {
		s.release(svc)
	}
	svc = &service{name: p.Name, id: p.ID, states: make([]int, numStates)}
	s.byID[p.ID], s.byName[p.Name] = svc, svc
	return svc
}

// release gives back the series of a service that left the plan.
func (s *state) release(svc *service) {
	svc.plan = nil
	for b, own := range svc.own {
		if own {
			s.budget.give(block(b))
			svc.own[b] = false
		}
	}
	if s.byName[svc.name] == svc {
		delete(s.byName, svc.name)
	}
}

func (svc *service) count() {
	clear(svc.states)
	for i := range svc.plan.Endpoints {
		if st := int(svc.plan.Endpoints[i].State); st < len(svc.states) {
			svc.states[st]++
		}
	}
}

// claim notes whose endpoint an id is. Ids are dense: they index kernel arrays.
func (s *state) claim(id lb.EndpointID, svc *service) {
	if n := int(id) + 1 - len(s.owner); n > 0 {
		s.owner = append(s.owner, make([]*service, n)...)
	}
	s.owner[id] = svc
}

// endpointOf finds or makes the endpoint behind an id of the kernel's; nil if
// no plan that we saw has named it.
func (s *state) endpointOf(id lb.EndpointID) *endpoint {
	if e := s.endpoints[id]; e != nil {
		return e
	}
	if int(id) >= len(s.owner) || s.owner[id] == nil {
		return nil
	}
	svc := s.owner[id]
	at := find(svc.plan, id)
	if at == nil {
		return nil
	}
	e := &endpoint{address: at.Address, service: svc, plan: svc.plan, listed: true}
	s.endpoints[id] = e
	return e
}

// check sees whether the endpoint is still in the plan under its id.
func (s *state) check(id lb.EndpointID, e *endpoint) {
	svc := e.service
	if svc.plan == e.plan && s.owner[id] == svc {
		return
	}
	e.plan = svc.plan
	at := find(svc.plan, id)
	e.listed = s.owner[id] == svc && at != nil && at.Address == e.address
	if e.listed {
		return
	}
	if e.own {
		e.own = false
		s.budget.give(blockEndpoint)
	}
	if e.ownHTTP {
		e.ownHTTP = false
		s.budget.give(blockEndpointHTTP)
	}
	if e.ownGRPC {
		e.ownGRPC = false
		s.budget.give(blockEndpointGRPC)
	}
	if s.owner[id] != svc || at != nil {
		delete(s.endpoints, id) // the id is another endpoint's now
	}
}

func find(p *plan.Service, id lb.EndpointID) *plan.Endpoint {
	if p == nil {
		return nil
	}
	for i := range p.Endpoints {
		if p.Endpoints[i].ID == id {
			return &p.Endpoints[i]
		}
	}
	return nil
}
