package daemon

import (
	"net/netip"
	"slices"
	"sync"

	"connectd/pkg/catalog"
	"connectd/pkg/catalog/cloudmap"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/task"
)

// merged is what the catalog files, the local tasks and the registry list
// together.
type merged struct {
	merger *catalog.Merger // the loop's

	weighed map[string]*weighed                               // the loop's: listings by source
	natural map[lb.ServiceName]map[netip.AddrPort]lb.Endpoint // the loop's: endpoints of this node whose weight was changed, as they were

	mu   sync.Mutex
	last []catalog.Clash
}

// listServices is the catalog as the loop plans it.
func (d *daemon) listServices() []*lb.Service {
	files, _ := d.catalog.Snapshot()
	listings := []catalog.Listing{{Source: "file", Services: files, Indexed: true}}
	if d.tasks.node != nil {
		listings = append(listings, catalog.Listing{Source: "tasks", Services: d.tasks.node.Services()})
	}
	if d.registry != nil {
		own, revision := d.registry.Own()
		d.merged.weigh(listings, own, revision)
		listed, _ := d.registry.Snapshot()
		listings = append(listings, catalog.Listing{Source: "cloudmap", Services: listed})
	}
	services, clashes := d.merged.merger.Merge(listings)
	d.merged.mu.Lock()
	before := d.merged.last
	d.merged.last = clashes
	d.merged.mu.Unlock()
	for _, c := range clashes {
		if !slices.Contains(before, c) {
			d.reportProblem(task.Problem{Task: c.Task, Field: c.Service.String(), Reason: c.Reason, Detail: c.Detail})
		}
	}
	return services
}

// weighed is a listing with other weights.
type weighed struct {
	from     []*lb.Service
	revision uint64
	to       []*lb.Service
}

// weigh gives endpoints of this node the weights that they have beside ECS's
// half of their service. Other nodes are told of them as they were: see
// undivided.
func (m *merged) weigh(listings []catalog.Listing, own map[lb.ServiceName][]lb.Endpoint, revision uint64) {
	if len(own) == 0 {
		m.weighed, m.natural = nil, nil
		return
	}
	last := m.weighed
	m.weighed = make(map[string]*weighed)
	natural := make(map[lb.ServiceName]map[netip.AddrPort]lb.Endpoint)
	for i := range listings {
		l := &listings[i]
		w := last[l.Source]
		if w == nil || w.revision != revision || !slices.Equal(w.from, l.Services) {
			w = &weighed{from: l.Services, revision: revision, to: slices.Clone(l.Services)}
			for i, s := range w.to {
				w.to[i] = reweigh(s, own[s.Name])
			}
		}
		m.weighed[l.Source] = w
		for i, s := range w.from {
			if w.to[i] == s {
				continue
			}
			if natural[s.Name] == nil {
				natural[s.Name] = make(map[netip.AddrPort]lb.Endpoint)
			}
			for _, e := range s.Endpoints {
				natural[s.Name][e.Address] = e
			}
		}
		l.Services = w.to
	}
	m.natural = natural
}

// reweigh returns the service itself where nothing changes.
func reweigh(s *lb.Service, own []lb.Endpoint) *lb.Service {
	out := *s
	out.Endpoints = slices.Clone(s.Endpoints)
	for i := range out.Endpoints {
		e := &out.Endpoints[i]
		at := slices.IndexFunc(own, func(o lb.Endpoint) bool { return o.Address == e.Address })
		if at >= 0 {
			e.Weight, e.Draining = own[at].Weight, e.Draining || own[at].Draining
		}
	}
	if slices.Equal(out.Endpoints, s.Endpoints) {
		return s
	}
	return &out
}

// undivided is the weight and state by which other nodes are to know an
// endpoint: not those of this node's share of it.
func (m *merged) undivided(s plan.Served) (weight uint16, state cloudmap.State) {
	weight, state = s.Endpoint.Weight, cloudmap.StateOf(s)
	was, changed := m.natural[s.Service.Name][s.Endpoint.Address]
	if !changed {
		return weight, state
	}
	// Draining hides whether it is healthy; nobody is sent there to know.
	if s.Endpoint.Draining && !was.Draining && s.Endpoint.Reason != plan.DrainedByCommand && state == cloudmap.Draining {
		if state = cloudmap.Healthy; !s.Exposed {
			state = cloudmap.Pending
		}
	}
	return was.Weight, state
}

func (m *merged) clashes() []catalog.Clash {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}
