package daemon

import (
	"net/netip"
	"slices"

	"connectd/pkg/control"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func (d *daemon) openControl(c *Config) (err error) {
	d.control, err = control.Listen(control.Params{
		Socket: c.ControlSocket, Log: d.log.With("component", "control"),
		Backend: control.Backend{
			Status: d.status, Names: d.names, Services: d.services, Endpoints: d.endpoints,
			Resolve: d.resolve, Drain: d.loop.Drain, Reload: d.reloadConfig,
			Events: d.events.After, Connections: d.connections, Tasks: d.taskDetails, Off: d.setOff,
		},
	})
	return err
}

// plan returns the plan in force, an empty one before the first.
func (d *daemon) plan() *plan.Desired {
	if p := d.loop.Desired(); p != nil {
		return p
	}
	return &plan.Desired{}
}

func (d *daemon) names() []lb.ServiceName {
	p := d.plan()
	out := make([]lb.ServiceName, len(p.Services))
	for i, s := range p.Services {
		out[i] = s.Name
	}
	return out
}

func (d *daemon) services() []control.Service {
	p := d.plan()
	out := make([]control.Service, len(p.Services))
	for i, s := range p.Services {
		out[i] = control.Service{
			Name: s.Name.String(), Protocol: s.Protocol.String(), Policy: s.LoadBalancing.Policy.String(),
			Endpoints: control.StateCounts{}, Panic: s.Panic, LastResort: s.LastResort,
		}
		if s.HealthCheck != nil {
			out[i].HealthCheck = string(s.HealthCheck.Protocol)
		}
		if s.HTTP != nil {
			out[i].AppProtocol, out[i].Mode = s.HTTP.Protocol.String(), s.HTTP.Mode()
		}
		for _, n := range s.Names {
			out[i].Names = append(out[i].Names, control.Name{DNSName: n.DNSName, Addresses: addresses(n.V4, n.V6), Ports: n.Ports})
		}
		for _, e := range s.Endpoints {
			out[i].Endpoints[e.State.String()]++
			out[i].ActiveConnections += uint64(d.active(e.ID))
		}
	}
	return out
}

func addresses(all ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

func (d *daemon) endpoints(of lb.ServiceName) []control.Endpoint {
	p := d.plan()
	avoided := map[lb.EndpointID][]string{}
	for _, t := range p.Tasks {
		for _, id := range t.Avoid {
			avoided[id] = append(avoided[id], t.Name)
		}
	}
	var out []control.Endpoint
	for _, s := range p.Services {
		if of != (lb.ServiceName{}) && s.Name != of {
			continue
		}
		for i := range s.Endpoints {
			e := d.endpoint(s, &s.Endpoints[i])
			e.AvoidedBy = avoided[s.Endpoints[i].ID]
			out = append(out, e)
		}
	}
	return out
}

func (d *daemon) endpoint(s *plan.Service, e *plan.Endpoint) control.Endpoint {
	c := d.datapath.Endpoint(e.ID)
	out := control.Endpoint{
		Service: s.Name.String(), Address: e.Address, Zone: e.Zone, Weight: e.Weight,
		State: e.State.String(), Reason: e.Reason, Since: e.Since, Verdict: e.Verdict.String(),
		ActiveConnections: c.Active, TotalConnections: c.Opened, Failures: c.Failed,
		DrainDeadline: e.DrainUntil, EjectedUntil: e.EjectUntil,
	}
	if probe, ok := d.health.Status(e.ID); ok && !probe.At.IsZero() {
		out.LastProbe = &control.Probe{At: probe.At, DurationSeconds: probe.Duration.Seconds()}
		if probe.Result != "success" {
			out.LastProbe.Error = probe.Reason
		}
	}
	return out
}

// resolve says what tasks get for a name.
func (d *daemon) resolve(name, only string) []control.Resolution {
	var out []control.Resolution
	for _, t := range d.plan().Tasks {
		if only != "" && t.Name != only {
			continue
		}
		r := d.dns.Resolve(name, t.ID)
		res := control.Resolution{
			Task: t.Name, Namespaces: t.Namespaces, Found: r.Found, Reason: r.Reason, Addresses: addresses(r.V4, r.V6),
		}
		if r.Found {
			res.Targets = d.targets(r.V4, r.V6, t)
		}
		out = append(out, res)
	}
	return out
}

// targets lists the services behind a VIP, and the share of each endpoint
// among the slots that a task may get.
func (d *daemon) targets(v4, v6 netip.Addr, t *plan.Task) []control.Target {
	var out []control.Target
	for _, s := range d.plan().Services {
		for _, n := range s.Names {
			if !(n.V4.IsValid() && n.V4 == v4) && !(n.V6.IsValid() && n.V6 == v6) {
				continue
			}
			out = append(out, control.Target{
				Service: s.Name.String(), Protocol: s.Protocol.String(), Ports: n.Ports,
				Policy: s.LoadBalancing.Policy.String(), Panic: s.Panic, LastResort: s.LastResort,
				Endpoints: append(shares(s, s.SlotsV4, t), shares(s, s.SlotsV6, t)...),
			})
			break
		}
	}
	return out
}

func shares(s *plan.Service, slots []lb.EndpointID, t *plan.Task) []control.Share {
	count, total := map[lb.EndpointID]int{}, 0
	if s.LoadBalancing.Policy == lb.SourceHash && len(slots) > 0 {
		slots = []lb.EndpointID{slots[int(t.HashKey%uint32(len(slots)))]}
	}
	for _, id := range slots {
		if !slices.Contains(t.Avoid, id) {
			count[id]++
			total++
		}
	}
	var out []control.Share
	for _, e := range s.Endpoints {
		if n := count[e.ID]; n > 0 {
			out = append(out, control.Share{
				Address: e.Address, Zone: e.Zone, State: e.State.String(), Percent: 100 * float64(n) / float64(total),
			})
		}
	}
	return out
}
