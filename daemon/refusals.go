package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"connectd/pkg/control"
	"connectd/pkg/datapath"
	"connectd/pkg/dns"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// refusals hands out what hooks refuse, and have while no daemon was there.
func (d *daemon) refusals(ctx context.Context) error {
	return d.datapath.Refusals(ctx, d.refusedCall)
}

func (d *daemon) refusedCall(r datapath.Refusal) {
	v := d.vips.find(d.plan(), r.Address, r.Protocol)
	d.refused(control.Event{
		At: r.At, Times: 1 + uint64(r.Untold), Task: d.known.name(r.Task), Name: v.name, Address: r.Address,
		Reason: r.Reason, Detail: v.explain(r),
	})
}

// refusedName is called by whoever serves the task's queries.
func (d *daemon) refusedName(r dns.Refusal) {
	d.refused(control.Event{
		Task: d.known.name(r.Task), Name: r.Name, Reason: "name_out_of_scope",
		Detail: "a name of namespace " + r.Namespace + ", which the task may not use: its own resolver was asked",
	})
}

func (d *daemon) refused(e control.Event) {
	e.Kind = control.EventRefused
	if !d.events.Add(e) {
		return
	}
	attrs := []any{"task", e.Task, "name", e.Name, "reason", e.Reason, "detail", e.Detail}
	if e.Address.IsValid() {
		attrs = append(attrs, "address", e.Address.String())
	}
	d.log.Warn("refused", attrs...)
}

// vipIndex finds what a VIP is called in a plan. It is made when first needed,
// and dropped with its plan: that of 100,000 endpoints is large.
type vipIndex struct{ latest atomic.Pointer[vipNames] }

type vipNames struct {
	plan  *plan.Desired
	names map[netip.Addr][]vipName
}

// vipName is a name of a VIP, and the service that it leads to.
type vipName struct {
	service *plan.Service
	name    *plan.Name
}

// vip is what is known of a VIP and port.
type vip struct {
	name      string // "": it is no name's
	namespace string
	service   *plan.Service // nil: no service has the port
}

func (x *vipIndex) publish() { x.latest.Store(nil) }

func (x *vipIndex) of(p *plan.Desired) *vipNames {
	if v := x.latest.Load(); v != nil && v.plan == p {
		return v
	}
	v := &vipNames{plan: p, names: make(map[netip.Addr][]vipName, 2*len(p.Services))}
	for _, s := range p.Services {
		for i := range s.Names {
			n := &s.Names[i]
			for _, a := range addresses(n.V4, n.V6) {
				v.names[a] = append(v.names[a], vipName{s, n})
			}
		}
	}
	x.latest.Store(v)
	return v
}

// find looks a VIP and port up.
func (x *vipIndex) find(p *plan.Desired, address netip.AddrPort, protocol lb.Protocol) vip {
	var out vip
	for _, v := range x.of(p).names[address.Addr()] {
		out.name, out.namespace = v.name.DNSName, v.service.Name.Namespace
		if v.service.Protocol == protocol && slices.Contains(v.name.Ports, address.Port()) {
			out.service = v.service
			break
		}
	}
	return out
}

// explain says what a refusal means, for people.
func (v vip) explain(r datapath.Refusal) string {
	service := "its service"
	if v.service != nil {
		service = "service " + v.service.Name.String()
	}
	switch r.Reason {
	case "no_frontend":
		if v.name == "" {
			return "no name has this address"
		}
		return fmt.Sprintf("the name has no port %d/%s", r.Address.Port(), r.Protocol)
	case "out_of_scope":
		if v.namespace == "" {
			return "of a namespace that the task may not use"
		}
		return "of namespace " + v.namespace + ", which the task may not use"
	case "no_endpoint":
		return service + " has no usable endpoint"
	case "stale":
		return service + " was being changed"
	case "untracked":
		return "it went on untracked: the connection map is full, or the task's share of it"
	}
	return ""
}

// knownTasks are the names of tasks by id, those that are planned no more
// included: their connections go on.
type knownTasks struct {
	mu    sync.Mutex
	names map[lb.TaskID]string
}

func (k *knownTasks) publish(p *plan.Desired) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.names == nil {
		k.names = make(map[lb.TaskID]string)
	}
	for _, t := range p.Tasks {
		k.names[t.ID] = t.Name
	}
}

func (k *knownTasks) name(id lb.TaskID) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name := k.names[id]; name != "" {
		return name
	}
	return fmt.Sprintf("task %d", id)
}
