package metrics

import (
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// state is what an Exporter remembers from scrape to scrape.
type state struct {
	src      *Sources
	desired  *plan.Desired
	syncs    uint64
	order    []*service // in the plan, sorted by name
	byID     map[lb.ServiceID]*service
	byName   map[lb.ServiceName]*service
	owner    []*service // by EndpointID; may be out of date for ids not in the plan
	other    *service
	budget   budget
	scratch  []uint64
	kernel   Kernel // the last good reading
	http     HTTP
	readErrs uint64

	endpoints    map[lb.EndpointID]*endpoint
	numEndpoints int // in the plan
}

// other cannot be a real service's name, for its namespace is empty.
var otherName = lb.ServiceName{DiscoveryName: "other"}

func newState(src *Sources) *state {
	s := &state{
		src:       src,
		byID:      make(map[lb.ServiceID]*service),
		byName:    make(map[lb.ServiceName]*service),
		endpoints: make(map[lb.EndpointID]*endpoint),
		other:     &service{name: otherName, states: make([]int, numStates)},
	}
	s.other.traffic.shown = make([]uint64, s.trafficLen())
	s.other.probes.shown = make([]uint64, s.probesLen())
	s.other.ejected.shown = make([]uint64, 1)
	s.other.http[0].shown = make([]uint64, s.httpLen())
	// A histogram is its finite buckets, +Inf, sum and count.
	kernelHistogram := len(src.Kernel.Bounds) + 3
	s.budget.cost = [blocks]int{
		blockState:    numStates + 2,
		blockTraffic:  len(src.Kernel.Reasons) + 2*kernelHistogram + endpointCounters + 1,
		blockProbe:    len(src.Probes.Results) + len(DurationBounds) + 3,
		blockEndpoint: endpointCounters + 1,
		blockHTTP: httpClasses + len(src.HTTP.Bounds) + 3 + len(src.HTTP.GRPCStatuses) + len(src.HTTP.RetryOutcomes) + 4 +
			httpClasses + len(src.HTTP.Bounds) + 3 + 2 + len(src.HTTP.GRPCStatuses), // its endpoint="other"
		blockEndpointHTTP: httpClasses + len(src.HTTP.Bounds) + 3 + 2,
		blockEndpointGRPC: len(src.HTTP.GRPCStatuses),
	}
	return s
}

func (s *state) trafficLen() int { return len(s.src.Kernel.Reasons) + 2*(len(s.src.Kernel.Bounds)+2) }
func (s *state) probesLen() int  { return len(s.src.Probes.Results) + len(DurationBounds) + 2 }

// update takes one reading of everything that belongs to services.
func (s *state) update() {
	clear(s.budget.folded[:])
	if d := s.src.Desired(); d != nil {
		s.sync(d)
	}
	if s.src.Kernel.Read != nil {
		if k, err := s.src.Kernel.Read(); err != nil {
			s.readErrs++
			s.src.Log.Error("read kernel counters, showing those before", "error", err)
		} else {
			s.kernel = k
		}
	}
	if s.src.HTTP.Read != nil {
		s.http = s.src.HTTP.Read()
	}
	s.markUsed()
	s.allotUsed()
	s.allotIdle()
	s.settleEndpoints()
	s.settleServices()
	s.settleProbes()
	s.settleEjections()
	s.settleHTTP()
	s.forget()
}

func (s *state) markUsed() {
	for id := range s.kernel.Services {
		if svc := s.byID[id]; svc != nil {
			svc.used, svc.carried = true, true
		}
	}
	for id := range s.kernel.Endpoints {
		if e := s.endpointOf(id); e != nil {
			e.service.used, e.service.carried = true, true
		}
	}
	for _, part := range s.http.parts() {
		for id := range part.Services {
			if svc := s.byID[id]; svc != nil {
				svc.used, svc.requests = true, true
			}
		}
	}
}

// allotUsed gives series to services in use, then to their endpoints: those
// with traffic first. The forwarder's services have none of connections as long
// as it carries them all.
func (s *state) allotUsed() {
	for _, svc := range s.order {
		if svc.used {
			s.allot(svc, blockState, limitService)
		}
		if svc.carried {
			s.allot(svc, blockTraffic, limitService)
		}
		if svc.requests {
			s.allot(svc, blockHTTP, limitService)
		}
	}
	for _, svc := range s.order {
		s.allotEndpoints(svc, true)
		s.allotHTTP(svc)
	}
	for _, svc := range s.order {
		s.allotEndpoints(svc, false)
	}
}

func (s *state) allotIdle() {
	for _, svc := range s.order {
		if !svc.used {
			s.allot(svc, blockState, limitIdle)
		}
	}
}

func (s *state) allot(svc *service, b block, limit int) bool {
	if !svc.own[b] {
		svc.own[b] = s.budget.take(b, limit)
	}
	return svc.own[b]
}

func (s *state) allotEndpoints(svc *service, busy bool) {
	if !svc.carried {
		return
	}
	for i := range svc.plan.Endpoints {
		id := svc.plan.Endpoints[i].ID
		if _, ok := s.kernel.Endpoints[id]; ok != busy {
			continue
		}
		if !svc.own[blockTraffic] { // then its endpoints are in other too
			s.budget.folded[blockEndpoint]++
			continue
		}
		e := s.endpoints[id]
		if (e == nil || !e.own) && s.budget.take(blockEndpoint, limitEndpoint) {
			s.endpointOf(id).own = true
		}
	}
}
