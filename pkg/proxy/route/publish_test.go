package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// history is a random sequence of plans, and the rules by which a table has to
// follow it, written without regard to what they cost.
type history struct {
	rand     *rand.Rand
	plan     []*plan.Service
	next     lb.ServiceID
	endpoint lb.EndpointID

	spoke  map[string]lb.ServiceID // services that have a route, and whose it is
	routes map[netip.AddrPort]*Route
	states map[string]*Service
}

func newHistory(seed uint64) *history {
	return &history{
		rand: rand.New(rand.NewPCG(seed, 1)), spoke: make(map[string]lb.ServiceID),
		routes: make(map[netip.AddrPort]*Route), states: make(map[string]*Service),
	}
}

func poolVIP(n int) netip.AddrPort {
	// Some share an address, some a shard.
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, byte(n % 2), byte(n / 4)}), 80+uint16(n%4))
}

const poolVIPs = 16

// step makes the next plan: most services stay as they are, the others come,
// go, change what they speak, or swap VIPs.
func (h *history) step() *plan.Desired {
	free := slices.DeleteFunc(h.rand.Perm(poolVIPs), func(n int) bool {
		return slices.ContainsFunc(h.plan, func(s *plan.Service) bool { return slices.Contains(vipsOf(s), poolVIP(n)) })
	})
	was := make(map[string]*plan.Service)
	for _, s := range h.plan {
		was[s.Name.DiscoveryName] = s
	}
	var dirty []string
	for i := range 6 {
		if h.rand.IntN(3) == 0 {
			dirty = append(dirty, fmt.Sprint("service-", i))
		}
	}
	for _, name := range dirty { // their VIPs are anybody's
		if s := was[name]; s != nil {
			for n := range poolVIPs {
				if slices.Contains(vipsOf(s), poolVIP(n)) {
					free = append(free, n)
				}
			}
		}
	}
	h.rand.Shuffle(len(free), func(i, k int) { free[i], free[k] = free[k], free[i] })
	for _, name := range dirty {
		if h.rand.IntN(4) == 0 {
			delete(was, name)
			continue
		}
		was[name] = h.service(name, was[name], &free)
	}
	h.plan = slices.SortedFunc(maps.Values(was), func(a, b *plan.Service) int { return a.Name.Compare(b.Name) })
	return &plan.Desired{Services: h.plan}
}

func (h *history) service(name string, before *plan.Service, free *[]int) *plan.Service {
	s := &plan.Service{Service: &lb.Service{
		Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP,
		HTTP: []*lb.HTTP{nil, {}, {}, {Direct: true}}[h.rand.IntN(4)],
	}}
	if h.rand.IntN(8) == 0 {
		s.Protocol = lb.UDP
	}
	if before != nil && h.rand.IntN(5) != 0 {
		s.ID = before.ID
		s.Endpoints = slices.Clone(before.Endpoints)
	} else {
		h.next++
		s.ID = h.next
	}
	if len(s.Endpoints) > 0 && h.rand.IntN(2) == 0 {
		s.Endpoints = s.Endpoints[1:]
	}
	for range h.rand.IntN(3) {
		h.endpoint++
		s.Endpoints = append(s.Endpoints, plan.Endpoint{ID: h.endpoint, Endpoint: lb.Endpoint{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(h.endpoint)}), 8080), Weight: 1,
		}})
	}
	for _, e := range s.Endpoints {
		s.SlotsV4 = append(s.SlotsV4, e.ID)
	}
	for range min(h.rand.IntN(4), len(*free)) {
		v := poolVIP((*free)[0])
		*free = (*free)[1:]
		s.Names = append(s.Names, plan.Name{DNSName: v.String(), V4: v.Addr(), Ports: []uint16{v.Port()}})
	}
	return s
}

// follow says what is wrong with a table that has just been given a plan.
func (h *history) follow(t *testing.T, table *Table) {
	t.Helper()
	spoke, states, routes := make(map[string]lb.ServiceID), make(map[string]*Service), make(map[netip.AddrPort]*Route)
	owners := make(map[netip.AddrPort]*plan.Service)
	for _, s := range h.plan {
		name := s.Name.DiscoveryName
		if s.Protocol != lb.TCP || s.HTTP == nil && h.spoke[name] != s.ID {
			continue
		}
		spoke[name] = s.ID
		for _, v := range vipsOf(s) {
			owners[v] = s
		}
	}
	for n := range poolVIPs {
		v := poolVIP(n)
		r, s := table.Route(v), owners[v]
		if s == nil || r == nil {
			if r != nil || s != nil {
				t.Fatalf("%s has a service: %t, a route: %t", v, s != nil, r != nil)
			}
			continue
		}
		name := s.Name.DiscoveryName
		if r.Name != s.Name || r.ID != s.ID || r.Former == s.Proxied() || r.HTTP == nil || !slices.Equal(r.SlotsV4, s.SlotsV4) {
			t.Fatalf("%s leads to %s %d (former %t), not to %s %d", v, r.Name, r.ID, r.Former, s.Name, s.ID)
		}
		same := h.spoke[name] == s.ID && h.states[name] != nil
		if same != (h.states[name] == r.State) {
			t.Fatalf("the state of %s: kept is %t, and should be %t", name, !same, same)
		}
		if before := h.routes[v]; before != nil && before != r && before.Service == s {
			t.Fatalf("%s has another route, and its service has not changed", v)
		}
		states[name], routes[v] = r.State, r
		for i, e := range r.v4.slots {
			if e != table.endpoints[s.SlotsV4[i]] || e.Address != s.Endpoints[i].Address {
				t.Fatalf("slot %d of %s is %d at %s", i, name, e.ID, e.Address)
			}
		}
	}
	// The state of a service that has no VIP just now is kept all the same.
	for name, id := range spoke {
		if states[name] == nil && h.spoke[name] == id {
			states[name] = h.states[name]
		}
	}
	h.spoke, h.states, h.routes = spoke, states, routes
	var visited []string
	table.Each(func(s *Service) { visited = append(visited, s.Name.DiscoveryName) }, func(*Endpoint) {})
	slices.Sort(visited)
	if !slices.Equal(visited, slices.Sorted(maps.Keys(spoke))) {
		t.Fatalf("counters of %q, not of %v", visited, spoke)
	}
}

// A table that is told of one plan after the other is what the rules say, and
// holds no more than the last one takes.
func TestPublishFollows(t *testing.T) {
	for seed := range uint64(50) {
		h, table := newHistory(seed), New()
		for range 100 {
			table.Publish(h.step())
			h.follow(t, table)
		}
		table.Publish(&plan.Desired{})
		if n := len(table.services) + len(table.endpoints) + len(table.leaving) + countVIPs(table); n > 0 {
			t.Fatalf("%d services, endpoints and VIPs are left of an empty plan", n)
		}
	}
}

// An id is not free while a connection holds its endpoint, though the plan has
// forgotten it.
func TestActiveOutlivesPlan(t *testing.T) {
	for _, c := range []struct {
		name string
		hold func(*Endpoint, int64)
	}{
		{"a connection", func(e *Endpoint, n int64) { e.Open.Add(n) }},
		{"a request between connections", func(e *Endpoint, n int64) { e.InFlight.Add(n) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New()
			table.Publish(planned(&lb.HTTP{}, 0))
			e := table.endpoints[1]
			if table.Active(1) != 0 {
				t.Fatal("an endpoint that nobody uses is active")
			}
			c.hold(e, 1)
			table.Publish(planned(&lb.HTTP{}, 1))
			table.Publish(&plan.Desired{})
			table.Publish(&plan.Desired{})
			if n := table.Active(1); n != 1 {
				t.Errorf("%d are counted of what it has", n)
			}
			table.Publish(planned(&lb.HTTP{}, 0))
			if table.endpoints[1] != e {
				t.Error("it came back as another")
			}
			table.Publish(&plan.Desired{})
			c.hold(e, -1)
			if n := table.Active(1); n != 0 {
				t.Errorf("%d are counted where there is none", n)
			}
			table.Publish(&plan.Desired{})
			if len(table.endpoints)+len(table.leaving) > 0 {
				t.Error("it is kept for nothing")
			}
		})
	}
}
