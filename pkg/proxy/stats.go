package proxy

import (
	"net/netip"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
)

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

// Client is a connection from a task.
type Client struct {
	Task      lb.TaskID
	From, VIP netip.AddrPort // its two ends, as the task's socket has them
	HTTP2     bool
	Requests  int            // begun, those in flight included
	InFlight  int            // requests now
	Endpoint  netip.AddrPort // of the HTTP/1 request in flight; zero without
}

// Clients lists connections from tasks, limit of them at most. It asks the
// loops, each of which it holds up for the time that it takes to walk its own.
func (p *Proxy) Clients(limit int) []Client {
	var out []Client
	for _, l := range p.loops {
		l.call(func() {
			for c := range l.clients {
				if len(out) == limit {
					return
				}
				out = append(out, c.describe())
			}
		})
	}
	return out
}

func (c *client) describe() Client {
	out := Client{Task: c.task, From: c.from, VIP: c.vip, HTTP2: c.h2 != nil, Requests: int(c.requests)}
	switch {
	case c.h2 != nil:
		out.InFlight = c.h2.session.Streams()
	case c.x != nil && c.x.co != nil:
		out.InFlight = 1
		out.Requests++ // counted when it is over
		if e := c.x.endpoint; e != nil {
			out.Endpoint = e.Address
		}
	}
	return out
}
