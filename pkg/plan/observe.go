package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"connectd/pkg/lb"
)

// Observe takes in what was seen since the last Step: what probes concluded,
// runs of failed connects and requests, and how many connections the endpoints
// in Desired.Watch have. What is said of an id that is not in use is ignored,
// and a watched endpoint missing from active was not counted.
func (p *Planner) Observe(verdicts []lb.VerdictChange, strikes []lb.Strike, active map[lb.EndpointID]uint32) {
	for i := range verdicts {
		p.takeVerdict(&verdicts[i])
	}
	if len(strikes) > 0 {
		p.strikes = append(p.strikes, strikes...)
		p.stirred = true
	}
	if len(active) > 0 {
		p.takeCounts(active)
	}
}

func (p *Planner) takeVerdict(v *lb.VerdictChange) {
	r := p.owner(v.Endpoint)
	if r == nil {
		return
	}
	info := &p.endpoints[v.Endpoint]
	reason := v.Reason
	if v.Verdict != lb.VerdictUnhealthy {
		reason = ""
	}
	if info.verdict == v.Verdict && p.reasons[v.Endpoint] == reason {
		return
	}
	info.verdict = v.Verdict
	if v.Verdict == lb.VerdictHealthy {
		info.past = pastHealthy
	}
	if reason == "" {
		delete(p.reasons, v.Endpoint)
	} else {
		p.reasons[v.Endpoint] = reason
	}
	p.logVerdict(v.Endpoint)
	p.touch(r)
}

// takeCounts marks removed endpoints and resting ids that have no connection
// left. An endpoint that is merely draining stays whatever its count.
func (p *Planner) takeCounts(active map[lb.EndpointID]uint32) {
	for r := range p.unsettled {
		for i := range r.endpoints {
			e := &r.endpoints[i]
			if e.State != lb.StateRemoved {
				continue
			}
			if n, ok := active[e.ID]; ok {
				p.endpoints[e.ID].idle = n == 0
				p.touch(r)
			}
		}
	}
	for i := range p.endpointIDs.held {
		h := &p.endpointIDs.held[i]
		if n, ok := active[lb.EndpointID(h.id)]; ok {
			p.stirred = p.stirred || h.idle != (n == 0)
			h.idle = n == 0
		}
	}
}

// owner returns the service an endpoint id belongs to, or nil.
func (p *Planner) owner(id lb.EndpointID) *service {
	if int(id) >= len(p.endpoints) || p.endpoints[id].service == 0 {
		return nil
	}
	return p.byID[p.endpoints[id].service]
}

// Drain drains an endpoint by command, or ends that. It is kept over restarts
// and until the endpoint leaves Desired. An endpoint that is not in the plan
// is an error; saying the same twice is not.
func (p *Planner) Drain(name lb.ServiceName, addr netip.AddrPort, on bool) error {
	r := p.find(name)
	if r == nil {
		return fmt.Errorf("drain %s of %s: no such service", addr, name)
	}
	if !slices.ContainsFunc(r.endpoints, func(e Endpoint) bool { return e.Address == addr }) {
		return fmt.Errorf("drain %s of %s: no such endpoint", addr, name)
	}
	if !on {
		if p.undrain(name, addr) {
			p.touch(r)
		}
		return nil
	}
	if !slices.Contains(p.drains[name], addr) {
		p.drains[name] = append(p.drains[name], addr)
		p.log("operator-drain").quote(name.Namespace).quote(name.DiscoveryName).addrPort(addr).end()
		p.touch(r)
	}
	return nil
}

func (p *Planner) undrain(name lb.ServiceName, addr netip.AddrPort) bool {
	i := slices.Index(p.drains[name], addr)
	if i < 0 {
		return false
	}
	p.drains[name] = slices.Delete(p.drains[name], i, i+1)
	if len(p.drains[name]) == 0 {
		delete(p.drains, name)
	}
	p.log("operator-undrain").quote(name.Namespace).quote(name.DiscoveryName).addrPort(addr).end()
	return true
}
