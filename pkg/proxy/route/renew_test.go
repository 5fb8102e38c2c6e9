package route

import (
	"net/netip"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var (
	vip  = netip.MustParseAddrPort("127.254.0.7:80")
	addr = [...]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("10.0.0.2:8080")}
)

// planned is a plan of one service with one endpoint.
func planned(http *lb.HTTP, endpoint int) *plan.Desired {
	id := lb.EndpointID(endpoint + 1)
	return &plan.Desired{
		Tasks: []*plan.Task{{ID: 1}},
		Services: []*plan.Service{{
			Service: &lb.Service{
				Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}, Protocol: lb.TCP, HTTP: http,
				ClientAliases: []lb.ClientAlias{{DNSName: "orders", Port: 80}},
			},
			ID:        1,
			Names:     []plan.Name{{DNSName: "orders", V4: vip.Addr(), Ports: []uint16{80}}},
			Endpoints: []plan.Endpoint{{ID: id, Endpoint: lb.Endpoint{Address: addr[endpoint]}}},
			SlotsV4:   []lb.EndpointID{id},
		}},
	}
}

// A service that is not the forwarder's any more keeps a route for the clients
// that are connected, and its endpoints there are those of now.
func TestFormer(t *testing.T) {
	for _, c := range []struct {
		name string
		then *lb.HTTP
	}{
		{"plain TCP", nil},
		{"direct", &lb.HTTP{Direct: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := New()
			table.Publish(planned(nil, 0))
			if table.Route(vip) != nil {
				t.Fatal("a service that never spoke HTTP has a route")
			}
			table.Publish(planned(&lb.HTTP{Retry: lb.Retry{Attempts: 2}}, 0))
			before := table.Route(vip)
			if before == nil || before.Former {
				t.Fatalf("route of an HTTP service: %+v", before)
			}
			task := table.Task(1)
			table.Publish(planned(c.then, 1))
			now, _ := table.Renew(vip, before, task)
			if now == before || !now.Former || now.HTTP == nil || now.State != before.State {
				t.Errorf("left with %+v", now)
			}
			if e, fresh := now.Choose(&Choice{Task: task}); e == nil || !fresh || e.Address != addr[1] {
				t.Errorf("leads to %v", e)
			}
			table.Publish(planned(&lb.HTTP{}, 1))
			if now := table.Route(vip); now.Former {
				t.Error("back, and still leaving")
			}
			table.Publish(&plan.Desired{})
			if table.Route(vip) != nil {
				t.Error("a service that is gone has a route")
			}
			// What a request began with is kept when it has gone.
			if r, k := table.Renew(vip, before, task); r != before || k != task {
				t.Error("a request in flight loses its route")
			}
		})
	}
}
