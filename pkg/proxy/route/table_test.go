package route

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func vips(numbers ...int) (out []netip.AddrPort) {
	for _, n := range numbers {
		out = append(out, vipOf(n))
	}
	return out
}

func desired(services ...*plan.Service) *plan.Desired { return &plan.Desired{Services: services} }

// TestPublishKeeps: what did not change is the same, and what changed keeps its
// counters, its budget and what its endpoints carry.
func TestPublishKeeps(t *testing.T) {
	table := New()
	one := service(1, lb.RoundRobin, vips(1, 2), endpoint(1, 1), endpoint(2, 1))
	two := service(2, lb.RoundRobin, vips(3), endpoint(3, 1))
	table.Publish(desired(one, two))
	before, other := table.Route(vipOf(1)), table.Route(vipOf(3))
	if before == nil || before != table.Route(vipOf(2)) || before.Service != one || other.Service != two {
		t.Fatalf("routes %p %p %p", before, table.Route(vipOf(2)), other)
	}
	shard := func() *map[netip.AddrPort]*slot { return table.vips[shardOf(vipOf(1))].Load() }
	vipMap := shard()
	before.State.Done(200, -1, 0, 1, 1)
	before.State.Budget.Deposit(before.HTTP.Retry, epoch)
	before.State.Budget.Take(before.HTTP.Retry, epoch)
	held := before.State.Budget.held.Load()
	e1, e2 := table.endpoints[1], table.endpoints[2]
	e1.InFlight.Add(3)
	e1.Open.Add(4)

	// Endpoint 1 gets another weight, 2 goes, 4 comes.
	changed := service(1, lb.RoundRobin, vips(1, 2), endpoint(1, 5), endpoint(4, 1))
	table.Publish(desired(changed, two))
	now := table.Route(vipOf(1))
	if now == before || now.Service != changed || now != table.Route(vipOf(2)) {
		t.Errorf("a changed service has route %p, before %p", now, before)
	}
	if table.Route(vipOf(3)) != other {
		t.Error("a service that did not change has another route")
	}
	if shard() != vipMap {
		t.Error("a map of VIPs was copied, and none came or went")
	}
	if now.State != before.State || now.State.Classes[2].Load() != 1 || now.State.Budget.held.Load() != held {
		t.Error("counters or budget are lost")
	}
	if table.endpoints[1] != e1 || e1.weight.Load() != 5 || table.Active(1) != 4 {
		t.Error("an endpoint that stayed lost its state")
	}
	if table.endpoints[2] != nil || table.Active(2) != 0 {
		t.Error("an endpoint that went is still known")
	}
	if slices.Contains(now.v4.each, e2) || !slices.Contains(now.v4.each, table.endpoints[4]) {
		t.Error("the route leads to other endpoints than the service's")
	}
	// Requests that began before go on by what they hold.
	if e, _ := before.Choose(&Choice{Task: &plan.Task{}, Tried: []*Endpoint{e1}}); e != e2 {
		t.Errorf("an older route leads to %v", e)
	}
}

// TestPublishMovedEndpoint: an id at another address is another endpoint.
func TestPublishMovedEndpoint(t *testing.T) {
	table := New()
	table.Publish(desired(service(1, lb.RoundRobin, vips(1), endpoint(1, 1))))
	table.endpoints[1].Open.Add(7)
	moved := endpoint(1, 1)
	moved.Address = netip.MustParseAddrPort("10.9.9.9:1")
	table.Publish(desired(service(1, lb.RoundRobin, vips(1), moved)))
	if e, _ := table.Route(vipOf(1)).Choose(&Choice{Task: &plan.Task{}}); e.Address != moved.Address || table.Active(1) != 0 {
		t.Errorf("leads to %s with %d connections", e.Address, table.Active(1))
	}
}

// TestPublishNewService: a service that takes another's name, as one deleted
// and created again does, begins anew.
func TestPublishNewService(t *testing.T) {
	table := New()
	table.Publish(desired(service(1, lb.RoundRobin, vips(1), endpoint(1, 1))))
	before := table.Route(vipOf(1))
	before.State.Done(200, -1, 0, 0, 0)
	again := service(1, lb.RoundRobin, vips(1), endpoint(2, 1))
	again.ID = 9
	table.Publish(desired(again))
	now := table.Route(vipOf(1))
	if now.State == before.State || now.State.Classes[2].Load() != 0 || now.State.ID != 9 {
		t.Errorf("state of service %d", now.State.ID)
	}
	if table.endpoints[1] != nil || table.endpoints[2] == nil {
		t.Errorf("endpoints %v", table.endpoints)
	}
}

// TestPublishDrops: services that go leave nothing.
func TestPublishDrops(t *testing.T) {
	table := New()
	one, two := service(1, lb.RoundRobin, vips(1, 2), endpoint(1, 1)), service(2, lb.RoundRobin, vips(3), endpoint(2, 1))
	table.Publish(desired(one, two))
	kept := table.Route(vipOf(3))
	table.Publish(desired(two))
	if table.Route(vipOf(1)) != nil || table.Route(vipOf(2)) != nil || table.Route(vipOf(3)) != kept {
		t.Error("the wrong VIPs are left")
	}
	if len(table.services) != 1 || len(table.endpoints) != 1 || countVIPs(table) != 1 {
		t.Errorf("left: %d services, %d endpoints, %d VIPs", len(table.services), len(table.endpoints), countVIPs(table))
	}
	table.Publish(&plan.Desired{})
	if len(table.services)+len(table.endpoints)+countVIPs(table) != 0 {
		t.Error("something is left of nothing")
	}
}

// TestPublishVIPs: VIPs come, go and move from one service to another, in one
// step.
func TestPublishVIPs(t *testing.T) {
	of := func(n int, v ...int) *plan.Service { return service(n, lb.RoundRobin, vips(v...), endpoint(n, 1)) }
	for _, c := range []struct {
		name        string
		before, now []*plan.Service
		want        map[int]lb.ServiceID
	}{
		{"one more", []*plan.Service{of(1, 1)}, []*plan.Service{of(1, 1, 2)}, map[int]lb.ServiceID{1: 1, 2: 1}},
		{"one less", []*plan.Service{of(1, 1, 2)}, []*plan.Service{of(1, 2)}, map[int]lb.ServiceID{2: 1}},
		{"another", []*plan.Service{of(1, 1)}, []*plan.Service{of(1, 2)}, map[int]lb.ServiceID{2: 1}},
		{"moved up", []*plan.Service{of(1, 1, 2), of(2, 3)}, []*plan.Service{of(1, 1), of(2, 2, 3)}, map[int]lb.ServiceID{1: 1, 2: 2, 3: 2}},
		{"moved down", []*plan.Service{of(1, 1), of(2, 2, 3)}, []*plan.Service{of(1, 1, 2), of(2, 3)}, map[int]lb.ServiceID{1: 1, 2: 1, 3: 2}},
		{"exchanged", []*plan.Service{of(1, 1), of(2, 2)}, []*plan.Service{of(1, 2), of(2, 1)}, map[int]lb.ServiceID{1: 2, 2: 1}},
		{"taken from one that goes", []*plan.Service{of(1, 1), of(2, 2)}, []*plan.Service{of(2, 1, 2)}, map[int]lb.ServiceID{1: 2, 2: 2}},
		{"taken by one that comes", []*plan.Service{of(2, 1, 2)}, []*plan.Service{of(1, 1), of(2, 2)}, map[int]lb.ServiceID{1: 1, 2: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New()
			table.Publish(desired(c.before...))
			table.Publish(desired(c.now...))
			for n := range 5 {
				got := lb.ServiceID(0)
				if r := table.Route(vipOf(n)); r != nil {
					got = r.State.ID
				}
				if got != c.want[n] {
					t.Errorf("VIP %d is service %d, want %d", n, got, c.want[n])
				}
			}
			if table.Route(netip.AddrPortFrom(vipOf(1).Addr(), 81)) != nil {
				t.Error("another port has a route")
			}
		})
	}
}

// TestRouteFamilies: a service's IPv6 VIP has its route, too.
func TestRouteFamilies(t *testing.T) {
	six := netip.MustParseAddrPort("[fd00::1]:80")
	table := New()
	table.Publish(desired(service(1, lb.RoundRobin, []netip.AddrPort{vipOf(1), six}, endpoint(1, 1), endpoint6(2, 1))))
	if r := table.Route(six); r == nil || r != table.Route(vipOf(1)) {
		t.Error("two families, two routes")
	}
}

// TestWhatIsNotRouted: UDP and plain TCP.
func TestWhatIsNotRouted(t *testing.T) {
	udp, tcp := service(1, lb.RoundRobin, vips(1), endpoint(1, 1)), service(2, lb.RoundRobin, vips(2), endpoint(2, 1))
	udp.Protocol, tcp.HTTP = lb.UDP, nil
	table := New()
	table.Publish(desired(udp, tcp))
	if table.Route(vipOf(1)) != nil || table.Route(vipOf(2)) != nil || len(table.services) != 0 {
		t.Error("routed")
	}
}

func TestPublishTasks(t *testing.T) {
	table := New()
	a, b := &plan.Task{ID: 1}, &plan.Task{ID: 2}
	table.Publish(&plan.Desired{Tasks: []*plan.Task{a, b}})
	tasks := table.tasks.Load()
	table.Publish(&plan.Desired{Tasks: []*plan.Task{a, b}})
	if table.tasks.Load() != tasks {
		t.Error("the map of tasks was copied, and none changed")
	}
	changed := &plan.Task{ID: 2, Avoid: []lb.EndpointID{1}}
	table.Publish(&plan.Desired{Tasks: []*plan.Task{a, changed}})
	if table.Task(1) != a || table.Task(2) != changed {
		t.Error("a changed task is not the plan's")
	}
	table.Publish(&plan.Desired{Tasks: []*plan.Task{changed}})
	if table.Task(0) != nil || table.Task(1) != nil || table.Task(2) != changed || table.Task(3) != nil {
		t.Error("the wrong task has gone")
	}
}

func TestAllows(t *testing.T) {
	for _, in := range []int{0, 1, 63, 64, 255} {
		task := &plan.Task{}
		task.Scope[in/64] = 1 << (in % 64)
		for _, of := range []int{0, 1, 63, 64, 65, 255} {
			r := &Route{Service: &plan.Service{NamespaceID: lb.NamespaceID(of)}}
			if Allows(task, r) != (in == of) {
				t.Errorf("scope of namespace %d and a service in %d: %v", in, of, Allows(task, r))
			}
		}
	}
}

// TestEach: every service and endpoint once.
func TestEach(t *testing.T) {
	table := New()
	table.Publish(desired(
		service(1, lb.RoundRobin, vips(1, 2), endpoint(1, 3), endpoint6(2, 1)), service(2, lb.RoundRobin, vips(3), endpoint(3, 1))))
	var services []lb.ServiceID
	var endpoints []lb.EndpointID
	table.Each(func(s *Service) { services = append(services, s.ID) }, func(e *Endpoint) { endpoints = append(endpoints, e.ID) })
	slices.Sort(services)
	slices.Sort(endpoints)
	if !slices.Equal(services, []lb.ServiceID{1, 2}) || !slices.Equal(endpoints, []lb.EndpointID{1, 2, 3}) {
		t.Errorf("services %v, endpoints %v", services, endpoints)
	}
}

// TestConcurrentReaders: while services change, come and go, a reader finds a
// route that belongs to its VIP and an endpoint that belongs to the route.
func TestConcurrentReaders(t *testing.T) {
	table := New()
	steady := service(1, lb.RoundRobin, vips(1), endpoint(1, 1))
	table.Publish(desired(steady))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			choice := &Choice{Task: &plan.Task{ID: 1}, Rand: seeded()}
			for ctx.Err() == nil {
				if r := table.Route(vipOf(1)); r == nil || r.Service != steady {
					t.Error("a service that stays is not found")
					return
				}
				r := table.Route(vipOf(2))
				if r == nil {
					continue
				}
				e, _ := r.Choose(choice)
				if r.State.ID != 2 || e == nil || !slices.ContainsFunc(r.Endpoints, func(p plan.Endpoint) bool { return p.ID == e.ID }) {
					t.Errorf("VIP 2 is service %d and leads to %v", r.State.ID, e)
					return
				}
				e.Open.Add(1)
				r.State.Done(200, -1, time.Millisecond, 1, 1)
				table.Active(e.ID)
				table.Renew(vipOf(2), r, choice.Task)
				table.Each(func(*Service) {}, func(*Endpoint) {})
				e.Open.Add(-1)
			}
		})
	}
	for i := range 500 {
		services := []*plan.Service{steady}
		if i%10 != 0 {
			services = append(services, service(2, lb.Random, vips(2, 3+i%2), endpoint(2+i%5, 1+i%3), endpoint(20, 1)))
		}
		table.Publish(&plan.Desired{Services: services, Tasks: []*plan.Task{{ID: 1}}})
	}
	stop()
	wg.Wait()
}

// BenchmarkPublish is a plan of 10,000 services with 10 endpoints each.
func BenchmarkPublish(b *testing.B) {
	const services, each = 10000, 10
	build := func(n, weight int) *plan.Service {
		endpoints := make([]plan.Endpoint, each)
		for i := range endpoints {
			endpoints[i] = endpoint(n*each+i+1, weight)
		}
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, byte(n >> 8), byte(n)}), 80)
		return service(n+1, lb.RoundRobin, []netip.AddrPort{vip}, endpoints...)
	}
	all := make([]*plan.Service, services)
	for n := range all {
		all[n] = build(n, 1)
	}
	versions := [...]*plan.Service{build(77, 1), build(77, 2)}
	tasks := make([]*plan.Task, 200)
	for i := range tasks {
		tasks[i] = &plan.Task{ID: lb.TaskID(i + 1)}
	}
	for _, c := range []struct {
		name string
		step func(i int) []*plan.Service
	}{
		{"nothing changed", func(int) []*plan.Service { return all }},
		{"one changed", func(i int) []*plan.Service {
			services := slices.Clone(all) // a plan is never written to
			services[77] = versions[i%2]
			return services
		}},
		{"one comes or goes", func(i int) []*plan.Service { return all[:services-i%2] }},
	} {
		b.Run(fmt.Sprint(services, "x", each, "/", c.name), func(b *testing.B) {
			table := New()
			table.Publish(&plan.Desired{Services: all, Tasks: tasks})
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				table.Publish(&plan.Desired{Services: c.step(i), Tasks: tasks})
			}
		})
	}
}

// countVIPs is how many VIPs have a route.
func countVIPs(t *Table) (n int) {
	for i := range t.vips {
		if shard := t.vips[i].Load(); shard != nil {
			n += len(*shard)
		}
	}
	return n
}
