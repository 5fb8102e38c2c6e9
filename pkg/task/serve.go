package task

import (
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
)

// Reasons of problems that are not in the labels.
const (
	ReasonLookup       = "lookup_failed"         // ports or namespace are not in the labels, and ECS does not say
	ReasonNamespace    = "namespace_unreachable" // its network namespace, cgroup or resolvers cannot be read
	ReasonNoAddress    = "no_address"            // nobody else could reach it
	ReasonNotListening = "not_listening"         // nobody listens on the port
	ReasonLoopbackOnly = "loopback_only"         // who listens does so on 127.0.0.1 only
	ReasonNotPublished = "not_published"         // bridge mode, no host port: reached from this node only
)

// Reasons lists every reason of a Problem, for metrics.
func Reasons() []string {
	return append([]string{ReasonLookup, ReasonNamespace, ReasonNoAddress, ReasonNotListening, ReasonLoopbackOnly, ReasonNotPublished},
		join.Reasons()...)
}

// serve works out the parts of services that the task is. settled is false
// while a port is awaited.
func (m *member) serve(n *Node, spots []*spot, now time.Time) (settled bool) {
	last := m.services
	m.services, m.inner, settled = nil, map[netip.AddrPort]uint16{}, true
	for i := range m.joined.Services {
		s := &m.joined.Services[i]
		endpoints, ok := m.endpoints(n, s, spots, now)
		settled = settled && ok
		if len(endpoints) == 0 {
			continue
		}
		next := *s.Service
		next.Endpoints = endpoints
		part := &next
		if k := slices.IndexFunc(last, func(o *lb.Service) bool { return o.Name == next.Name && n.Same(o, part) }); k >= 0 {
			part = last[k]
		}
		m.services = append(m.services, part)
	}
	return settled
}

// endpoints are the addresses of one service of the task.
func (m *member) endpoints(n *Node, s *join.Service, spots []*spot, now time.Time) (out []lb.Endpoint, settled bool) {
	at, c, ok := locate(spots, s.Port.Container)
	if !ok || c.PID == 0 {
		return nil, true // not started yet, or ended: Docker says when
	}
	p := m.places[at.key]
	if p == nil || p.task.Name == "" {
		return nil, true
	}
	settled = true
	for _, a := range m.where(n, s, at, c, p) {
		reach := p.listening[portKey{s.Port.Protocol, s.Port.ContainerPort, a.Addr().Is6() && !at.mapped}]
		if a.Addr().Is6() && reach != anyoneListens {
			continue // programs that do without IPv6 are no problem
		}
		settled = settled && reach == anyoneListens
		m.inner[a] = s.Port.ContainerPort
		m.reachProblem(s, reach, m.silentFor(a, reach, now) >= listenGrace)
		out = append(out, lb.Endpoint{
			Address: a, Zone: m.zone, Weight: 1, Task: p.task.Name, Owner: m.ecs.Owner(),
			Draining: m.leaving || !m.draining.IsZero(), Declared: m.declare(s, c, reach),
		})
	}
	slices.SortFunc(out, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	return out, settled
}

// where says under which addresses others reach the service: the task's own in
// awsvpc mode, the node's and the published port in bridge mode, the node's in
// host mode. That is what ECS registers, so that every node knows an endpoint
// by one address.
func (m *member) where(n *Node, s *join.Service, at *spot, c docker.Container, p *place) (out []netip.AddrPort) {
	field := "label connectd.ports: " + s.Port.Name
	own := func() {
		for _, a := range p.addresses.all() {
			out = append(out, netip.AddrPortFrom(a, s.Port.ContainerPort))
		}
	}
	switch {
	case at.host || at.awsvpc:
		own()
	case c.State != docker.Running || !at.owner.PortsKnown:
		return nil // and not what Docker is yet to publish
	default:
		node, err := n.Address()
		if err != nil {
			n.Log.Warn("read the node's addresses", "error", err)
		}
		for _, a := range node.all() {
			if port := at.published(c, s.Port, a); port != 0 {
				out, at.mapped = append(out, netip.AddrPortFrom(a, port)), true
			}
		}
		if len(out) == 0 {
			m.problems = append(m.problems, Problem{Task: m.name, Field: field, Reason: ReasonNotPublished, Note: true,
				Detail: "port has no host port, it is reached from this node only"})
			own()
		}
	}
	if len(out) == 0 {
		m.problem(field, ReasonNoAddress, "no address that others reach")
	}
	return out
}

// declare says what the task itself says of an endpoint. Where probes are
// asked for they decide, once somebody listens.
func (m *member) declare(s *join.Service, c docker.Container, reach listening) lb.Declared {
	switch {
	case reach != anyoneListens:
		return lb.DeclaredPending
	case c.Health == "starting" && !c.ChecksReadiness:
		return lb.DeclaredPending
	case c.Health == "unhealthy" && !c.ChecksReadiness && m.healthy[c.ID]:
		return lb.DeclaredUnhealthy
	case c.Health == "unhealthy" && !c.ChecksReadiness:
		return lb.DeclaredPending // it never was ready
	case s.HealthCheck != nil:
		return lb.DeclaredNothing
	}
	return lb.DeclaredHealthy
}

// silentFor is how long nobody has listened. A process that ends is missed
// before Docker tells of it, so that the time since the container's start is
// no measure.
func (m *member) silentFor(at netip.AddrPort, reach listening, now time.Time) time.Duration {
	if reach != nobodyListens {
		delete(m.silent, at)
		return 0
	}
	since, ok := m.silent[at]
	if !ok {
		m.silent[at], since = now, now
	}
	return now.Sub(since)
}

func (m *member) reachProblem(s *join.Service, reach listening, late bool) {
	field := "label connectd.ports: " + s.Port.Name
	switch {
	case !m.draining.IsZero(): // it need not any more
	case reach == loopbackListens:
		m.problem(field, ReasonLoopbackOnly, "port %d is listened on at 127.0.0.1 only, listen on 0.0.0.0", s.Port.ContainerPort)
	case reach == nobodyListens && late:
		m.problem(field, ReasonNotListening, "nobody listens on port %d", s.Port.ContainerPort)
	}
}
