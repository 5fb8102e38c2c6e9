package daemon

import (
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/catalog"
	"connectd/pkg/catalog/cloudmap"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// listed is a service of prod with its endpoints.
func listed(name string, endpoints ...lb.Endpoint) *lb.Service {
	return &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Endpoints: endpoints}
}

// weighedAt is an endpoint of a local task.
func weighedAt(address string, weight uint16) lb.Endpoint {
	return lb.Endpoint{Address: netip.MustParseAddrPort(address), Weight: weight, Task: "orders/1"}
}

// TestWeigh: the endpoints of this node get the weights that they have beside
// ECS's half, in whatever listing they are, and nothing else changes.
func TestWeigh(t *testing.T) {
	var m merged
	one, two, other := weighedAt("10.0.0.1:80", 5), weighedAt("10.0.0.2:80", 5), weighedAt("10.0.0.3:80", 5)
	orders, pay := listed("orders", one, two), listed("pay", other)
	file := listed("orders", weighedAt("10.0.0.4:80", 7))
	listings := func() []catalog.Listing {
		return []catalog.Listing{{Source: "file", Services: []*lb.Service{file}, Indexed: true}, {Source: "tasks", Services: []*lb.Service{orders, pay}}}
	}
	own := map[lb.ServiceName][]lb.Endpoint{orders.Name: {
		{Address: one.Address, Weight: 300}, {Address: two.Address, Weight: 5, Draining: true}, {Address: file.Endpoints[0].Address, Weight: 400},
	}}
	weigh := func(revision uint64) []catalog.Listing {
		l := listings()
		m.weigh(l, own, revision)
		return l
	}

	first := weigh(1)
	wantOne, wantTwo, wantFile := one, two, file.Endpoints[0]
	wantOne.Weight, wantTwo.Draining, wantFile.Weight = 300, true, 400
	if got := first[1].Services[0].Endpoints; !slices.Equal(got, []lb.Endpoint{wantOne, wantTwo}) {
		t.Errorf("the tasks' orders are %+v", got)
	}
	if got := first[0].Services[0].Endpoints; !slices.Equal(got, []lb.Endpoint{wantFile}) || !first[0].Indexed {
		t.Errorf("the file's orders are %+v", first[0])
	}
	if first[1].Services[1] != pay {
		t.Error("a service without ECS's half is another one")
	}
	if !slices.Equal(orders.Endpoints, []lb.Endpoint{one, two}) {
		t.Errorf("the source's own list was written to: %+v", orders.Endpoints)
	}

	// The merger compares by pointer: what did not change is the same.
	if again := weigh(1); again[0].Services[0] != first[0].Services[0] || again[1].Services[0] != first[1].Services[0] {
		t.Error("the same once more is another service")
	}
	own = map[lb.ServiceName][]lb.Endpoint{orders.Name: {{Address: one.Address, Weight: 600}, {Address: two.Address, Weight: 5}}}
	if got := weigh(2)[1].Services[0].Endpoints; got[0].Weight != 600 || got[1] != two {
		t.Errorf("after the share changed the tasks' orders are %+v", got)
	}
	orders = listed("orders", two)
	if got := weigh(2)[1].Services[0]; got != orders {
		t.Errorf("a new list whose endpoints keep their weights is %+v", got)
	}
	own = nil
	if got := weigh(3); got[1].Services[0] != orders || m.natural != nil {
		t.Errorf("when the share has gone: %+v, and %v is remembered", got, m.natural)
	}
}

// TestUndivided: other nodes are told of an endpoint as it is, not as this
// node uses it beside ECS's half.
func TestUndivided(t *testing.T) {
	for _, test := range []struct {
		name            string
		natural, shared lb.Endpoint // shared has the weight and the draining of the node's share
		state           lb.State    // as planned
		reason          string
		hidden          bool // not exposed
		divided         bool
		weight          uint16
		want            cloudmap.State
	}{
		{name: "no share", natural: lb.Endpoint{Weight: 5}, weight: 5, want: cloudmap.Healthy},
		{name: "a share of 30 %", natural: lb.Endpoint{Weight: 5}, shared: lb.Endpoint{Weight: 300}, divided: true, weight: 5, want: cloudmap.Healthy},
		{name: "and unhealthy", natural: lb.Endpoint{Weight: 5}, shared: lb.Endpoint{Weight: 300}, divided: true, state: lb.StateUnhealthy, weight: 5, want: cloudmap.Unhealthy},
		{name: "no share left", natural: lb.Endpoint{Weight: 5}, shared: lb.Endpoint{Weight: 5, Draining: true}, divided: true,
			state: lb.StateDraining, weight: 5, want: cloudmap.Healthy},
		{name: "no share, and not ready", natural: lb.Endpoint{Weight: 5}, shared: lb.Endpoint{Weight: 5, Draining: true}, divided: true,
			state: lb.StateDraining, hidden: true, weight: 5, want: cloudmap.Pending},
		{name: "draining by itself", natural: lb.Endpoint{Weight: 5, Draining: true}, shared: lb.Endpoint{Weight: 300, Draining: true}, divided: true,
			state: lb.StateDraining, weight: 5, want: cloudmap.Draining},
		{name: "drained by command too", natural: lb.Endpoint{Weight: 5}, shared: lb.Endpoint{Weight: 5, Draining: true}, divided: true,
			state: lb.StateDraining, reason: plan.DrainedByCommand, weight: 5, want: cloudmap.Draining},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m merged
			at := netip.MustParseAddrPort("10.0.0.1:80")
			test.natural.Address, test.shared.Address = at, at
			s := listed("orders", test.natural)
			listings := []catalog.Listing{{Source: "tasks", Services: []*lb.Service{s}}}
			if test.divided {
				m.weigh(listings, map[lb.ServiceName][]lb.Endpoint{s.Name: {test.shared}}, 1)
			}
			planned := plan.Endpoint{Endpoint: listings[0].Services[0].Endpoints[0], State: test.state, Reason: test.reason}
			weight, state := m.undivided(plan.Served{Service: &plan.Service{Service: s}, Endpoint: &planned, Exposed: !test.hidden})
			if weight != test.weight || state != test.want {
				t.Errorf("it is told with weight %d and state %d, want %d and %d", weight, state, test.weight, test.want)
			}
		})
	}
}
