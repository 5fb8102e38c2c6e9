package cloudmap

import (
	"fmt"
	"slices"
	"strings"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// OffersOf lists what a plan has to be registered: what local tasks serve, and
// static endpoints of services that are to be published. asKnown says by which
// weight and in which state other nodes are to know an endpoint; nil: as
// planned. The list is in no order.
func OffersOf(p *plan.Desired, asKnown func(plan.Served) (weight uint16, state State)) []Offer {
	if asKnown == nil {
		asKnown = func(s plan.Served) (uint16, State) { return s.Endpoint.Weight, StateOf(s) }
	}
	tasks := make(map[string]*plan.Task, len(p.Tasks))
	for _, t := range p.Tasks {
		tasks[t.Name] = t
	}
	offers := map[string]*Offer{}
	for _, s := range append(slices.Clone(p.Local), published(p)...) {
		id := OfferID(s)
		o := offers[key(s.Service.Name, id)]
		if o == nil {
			o = &Offer{ID: id, Service: s.Service.Service, Port: s.Endpoint.Address.Port()}
			o.Weight, o.State = asKnown(s)
			if t := tasks[s.Endpoint.Task]; t != nil && t.ECS != nil {
				o.Task, o.Cluster, o.ECSService, o.Family = t.ECS.ARN, t.ECS.Cluster, t.ECS.Service, t.ECS.Family
			}
			offers[key(s.Service.Name, id)] = o
		}
		if a := s.Endpoint.Address.Addr(); a.Is4() {
			o.V4 = a
		} else {
			o.V6 = a
		}
	}
	list := make([]Offer, 0, len(offers))
	for _, o := range offers {
		list = append(list, *o)
	}
	return list
}

// published are static endpoints of services that are to be published.
func published(p *plan.Desired) (out []plan.Served) {
	for _, s := range p.Services {
		if !s.Publish {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if e.Task == "" && e.Declared == lb.DeclaredNothing && e.State != lb.StateRemoved {
				out = append(out, plan.Served{Service: s, Endpoint: e, Exposed: e.State != lb.StatePending})
			}
		}
	}
	return out
}

// OfferID is the id of the offer that an endpoint is part of, unique in its
// service: the task, the service and its port, or a static endpoint's address.
// A task has one port for each address family.
func OfferID(s plan.Served) string {
	task := s.Endpoint.Task
	if task == "" { // of a catalog file
		return fmt.Sprintf("static-%s-%d", strings.NewReplacer(":", "-", ".", "-").Replace(s.Endpoint.Address.Addr().String()), s.Endpoint.Address.Port())
	}
	if i := strings.IndexByte(task, '/'); i >= 0 {
		task = strings.ReplaceAll(task[i+1:], "/", "-") // without the family
	}
	return fmt.Sprintf("%s-%s-%d", task, s.Service.Name.DiscoveryName, s.Endpoint.Address.Port())
}
