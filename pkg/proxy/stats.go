package proxy

import "connectd/pkg/proxy/route"

// Stats are how much the forwarder has in its hands.
type Stats struct {
	Clients  int // connections from clients
	Busy     int // connections to endpoints with a request on them
	Idle     int
	Refusals map[string]uint64 // what connectd answered itself or ended, by reason
}

// Stats returns them as they are now.
func (p *Proxy) Stats() Stats {
	s := Stats{Clients: p.clients(), Refusals: make(map[string]uint64, len(refusalReasons))}
	for _, l := range p.loops {
		s.Idle += int(l.idle.Load())
	}
	open := 0
	p.Each(func(*route.Service) {}, func(e *route.Endpoint) { open += int(e.Open.Load()) })
	s.Busy = max(0, open-s.Idle)
	for i, reason := range refusalReasons {
		s.Refusals[reason] = p.refusals[i].Load()
	}
	return s
}

// Each visits what is counted of services and endpoints.
func (p *Proxy) Each(service func(*route.Service), endpoint func(*route.Endpoint)) {
	p.table.Each(service, endpoint)
}
