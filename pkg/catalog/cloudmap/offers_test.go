package cloudmap

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// planned is a service of prod as planned.
func planned(name string, publish bool, endpoints ...plan.Endpoint) *plan.Service {
	return &plan.Service{Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Publish: publish}, Endpoints: endpoints}
}

func endpointAt(address, task string, state lb.State) plan.Endpoint {
	return plan.Endpoint{Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort(address), Task: task, Weight: 3}, State: state}
}

// offersOf lists the offers by their ids.
func offersOf(p *plan.Desired) []Offer {
	list := OffersOf(p, nil)
	slices.SortFunc(list, func(a, b Offer) int {
		return strings.Compare(a.ID+a.Service.Name.String(), b.ID+b.Service.Name.String())
	})
	return list
}

// TestOffers: a task's addresses of both families are one offer, with what ECS
// says of it, and only endpoints that this node answers for are published.
func TestOffers(t *testing.T) {
	const task, bare = "orders/0123", "tool"
	orders := planned("orders", false, endpointAt("10.0.0.1:8080", task, lb.StateActive), endpointAt("[fd00::1]:8080", task, lb.StateActive),
		endpointAt("10.0.0.1:8081", task, lb.StatePending), endpointAt("10.0.0.2:80", bare, lb.StateUnhealthy))
	declared := endpointAt("10.9.0.1:80", "", lb.StateActive)
	declared.Declared = lb.DeclaredHealthy
	shared := planned("pay", true, endpointAt("10.9.0.2:80", "", lb.StateActive), endpointAt("10.9.0.3:80", "", lb.StateRemoved), declared,
		endpointAt("10.9.0.4:80", "", lb.StatePending), endpointAt("[fd09::5]:80", "", lb.StateDraining))
	hidden := planned("secret", false, endpointAt("10.9.0.6:80", "", lb.StateActive))
	p := &plan.Desired{
		Services: []*plan.Service{orders, shared, hidden},
		Tasks:    []*plan.Task{{Task: lb.Task{Name: task, ECS: &lb.ECSTask{ARN: "arn:task", Cluster: "shop", Service: "orders-svc", Family: "orders"}}}, {Task: lb.Task{Name: bare}}},
	}
	for i := range orders.Endpoints {
		e := &orders.Endpoints[i]
		p.Local = append(p.Local, plan.Served{Service: orders, Endpoint: e, Exposed: e.State != lb.StatePending})
	}
	ecs := Offer{Service: orders.Service, Weight: 3, Task: "arn:task", Cluster: "shop", ECSService: "orders-svc", Family: "orders", V4: netip.MustParseAddr("10.0.0.1")}
	first, second := ecs, ecs
	first.ID, first.Port, first.State, first.V6 = "0123-orders-8080", 8080, Healthy, netip.MustParseAddr("fd00::1")
	second.ID, second.Port, second.State = "0123-orders-8081", 8081, Pending
	want := []Offer{first, second,
		{ID: "static-10-9-0-2-80", Service: shared.Service, Port: 80, Weight: 3, State: Healthy, V4: netip.MustParseAddr("10.9.0.2")},
		{ID: "static-10-9-0-4-80", Service: shared.Service, Port: 80, Weight: 3, State: Pending, V4: netip.MustParseAddr("10.9.0.4")},
		{ID: "static-fd09--5-80", Service: shared.Service, Port: 80, Weight: 3, State: Draining, V6: netip.MustParseAddr("fd09::5")},
		{ID: "tool-orders-80", Service: orders.Service, Port: 80, Weight: 3, State: Unhealthy, V4: netip.MustParseAddr("10.0.0.2")},
	}
	got := offersOf(p)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("offers are\n%+v\nwant\n%+v", got, want)
		}
	}
	for _, o := range got {
		if !instanceIDs.MatchString(o.ID) {
			t.Errorf("Cloud Map takes no id %q", o.ID)
		}
	}
	for _, o := range OffersOf(p, func(plan.Served) (uint16, State) { return 9, Draining }) {
		if o.Weight != 9 || o.State != Draining {
			t.Errorf("%s is offered with weight %d in state %d, not as it is to be known", o.ID, o.Weight, o.State)
		}
	}
}

// TestOffersShareAddress: one static endpoint of two services is two offers,
// for ids need be unique in a service only.
func TestOffersShareAddress(t *testing.T) {
	p := &plan.Desired{Services: []*plan.Service{
		planned("orders", true, endpointAt("10.9.0.1:80", "", lb.StateActive)),
		planned("orders-v2", true, endpointAt("10.9.0.1:80", "", lb.StateActive)),
	}}
	got := offersOf(p)
	if len(got) != 2 || got[0].Service == got[1].Service {
		t.Fatalf("offers are %+v, want one of each service", got)
	}
	w := newWorld(t, -1)
	n := w.node("i-1")
	n.Source.Offer(got, true)
	if problems := n.Problems(); len(problems) > 0 {
		t.Errorf("refused: %+v", problems)
	}
}
