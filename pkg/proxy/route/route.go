package route

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// Route is a service as requests see it. It is immutable but for its state.
type Route struct {
	*plan.Service
	State     *Service
	Authority []byte // "name:port" for requests that have no Host
	Former    bool   // new connections are not the forwarder's: those it has are to end with an answer

	v4, v6 choices
}

// choices are the endpoints of one address family: slots by weight and zone as
// package plan has filled them, and each endpoint once.
type choices struct {
	slots []*Endpoint
	each  []*Endpoint
}

// Service is what is kept of a service over its routes.
type Service struct {
	Name   lb.ServiceName
	ID     lb.ServiceID
	Budget Budget
	Counters
	Retries  [retryOutcomes]atomic.Uint64
	Timeouts atomic.Uint64
	accounts

	turn atomic.Uint32
}

// Endpoint is what is kept of an endpoint over the routes that name it.
type Endpoint struct {
	ID      lb.EndpointID
	Address netip.AddrPort
	weight  atomic.Int64

	InFlight atomic.Int64 // requests
	Open     atomic.Int64 // connections
	Counters
	runs   atomic.Int32 // runs of failures, see Runs
	server atomic.Pointer[Server]
}

// Server is where requests to the endpoint are counted, with those to others of
// its ECS service.
func (e *Endpoint) Server() *Server { return e.server.Load() }

// active is how much an endpoint has to do.
func (e *Endpoint) active() uint32 { return uint32(max(0, e.Open.Load(), e.InFlight.Load())) }

// newRoute builds the route of a service whose endpoints are given in its order.
func newRoute(state *Service, s *plan.Service, endpoints []*Endpoint) *Route {
	r := &Route{Service: s, State: state, Authority: []byte(s.Name.FQDN())}
	byID := make(map[lb.EndpointID]*Endpoint, len(endpoints))
	for _, e := range endpoints {
		byID[e.ID] = e
	}
	r.v4, r.v6 = resolve(s.SlotsV4, byID), resolve(s.SlotsV6, byID)
	return r
}

func resolve(ids []lb.EndpointID, byID map[lb.EndpointID]*Endpoint) (c choices) {
	if len(ids) == 0 {
		return c
	}
	c.slots = make([]*Endpoint, 0, len(ids))
	seen := make(map[*Endpoint]bool, len(byID))
	for _, id := range ids {
		e := byID[id]
		if e == nil {
			continue
		}
		c.slots = append(c.slots, e)
		// Tables repeat few endpoints many times.
		if len(c.each) < len(byID) && !seen[e] {
			seen[e] = true
			c.each = append(c.each, e)
		}
	}
	return c
}

// Choice is what a request's endpoint depends on.
type Choice struct {
	Task  *plan.Task
	V6    bool        // of the VIP
	Tried []*Endpoint // by this request, in order
	Rand  *rand.Rand
}

// Choose picks an endpoint as the connect hook does (bpf/lib/lb.h): by the
// service's policy over its slots, stepping over what is ejected for this task
// alone, and over what the request has tried. fresh is false when all have been
// tried: then it is the one that was tried longest ago. nil says that there is
// none.
func (r *Route) Choose(c *Choice) (e *Endpoint, fresh bool) {
	from := &r.v4
	if c.V6 {
		from = &r.v6
	}
	n := uint32(len(from.slots))
	if n == 0 {
		return nil, false
	}
	i := r.first(c, n)
	e = from.slots[i]
	if r.LoadBalancing.Policy == lb.LeastConnections {
		if other := from.slots[c.Rand.Uint32N(n)]; other.lighter(e) {
			e = other
		}
	}
	if len(c.Tried) == 0 && len(c.Task.Avoid) == 0 {
		return e, true
	}
	return from.usable(c, i, e)
}

func (r *Route) first(c *Choice, n uint32) uint32 {
	switch r.LoadBalancing.Policy {
	case lb.RoundRobin:
		if len(c.Tried) > 0 {
			// Another try takes no turn, or endpoints whose neighbours fail would
			// get more than their share.
			return (r.State.turn.Load() + 1) % n
		}
		return r.State.turn.Add(1) % n
	case lb.SourceHash:
		return c.Task.HashKey % n
	}
	return c.Rand.Uint32N(n)
}

// lighter says whether e carries fewer requests for its weight than o.
func (e *Endpoint) lighter(o *Endpoint) bool {
	return e.InFlight.Load()*o.weight.Load() < o.InFlight.Load()*e.weight.Load()
}

// steps is how far the slots after the chosen one are looked at, before each
// endpoint is: weights still count among them.
const steps = 8

// usable is the chosen endpoint e of slot i, or the nearest that w does not
// speak against.
func (c *choices) usable(w *Choice, i uint32, e *Endpoint) (*Endpoint, bool) {
	var avoided *Endpoint // the first, so that weights count where all are
	n := uint32(len(c.slots))
	for k := range uint32(steps) {
		if k > 0 {
			e = c.slots[(i+k)%n]
		}
		if w.takes(e, &avoided) {
			return e, true
		}
	}
	at := int(i) % len(c.each)
	for k := range c.each {
		e := c.each[(at+k)%len(c.each)]
		if w.takes(e, &avoided) {
			return e, true
		}
	}
	if avoided != nil {
		return avoided, true // another one is tried before one that has failed
	}
	for k, e := range w.Tried {
		if !slices.Contains(w.Tried[k+1:], e) && slices.Contains(c.each, e) {
			return e, false
		}
	}
	return e, false
}

// takes says that e was neither tried nor is avoided. The first that is only
// avoided is noted.
func (w *Choice) takes(e *Endpoint, avoided **Endpoint) bool {
	switch {
	case slices.Contains(w.Tried, e):
	case !w.avoids(e):
		return true
	case *avoided == nil:
		*avoided = e
	}
	return false
}

// avoids bisects: each endpoint of a service that has failed is asked for, and
// a task may avoid thousands.
func (w *Choice) avoids(e *Endpoint) bool {
	_, found := slices.BinarySearch(w.Task.Avoid, e.ID)
	return found
}
