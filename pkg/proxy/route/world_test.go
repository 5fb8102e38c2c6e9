package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// service is HTTP service n with its VIPs and endpoints; slots are by name the
// endpoints' addresses, see endpoint.
func service(n int, policy lb.Policy, vips []netip.AddrPort, endpoints ...plan.Endpoint) *plan.Service {
	s := &plan.Service{
		Service: &lb.Service{
			Name:          lb.ServiceName{Namespace: "prod", DiscoveryName: fmt.Sprint("service-", n)},
			Protocol:      lb.TCP,
			HTTP:          &lb.HTTP{Retry: lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 3}},
			LoadBalancing: lb.LoadBalancing{Policy: policy},
		},
		ID:        lb.ServiceID(n),
		Endpoints: endpoints,
	}
	for i, vip := range vips {
		name := plan.Name{DNSName: fmt.Sprintf("name-%d-%d", n, i), V4: vip.Addr(), Ports: []uint16{vip.Port()}}
		if vip.Addr().Is6() {
			name.V4, name.V6 = netip.Addr{}, vip.Addr()
		}
		s.Names = append(s.Names, name)
	}
	for _, e := range endpoints {
		for range max(1, e.Weight) {
			if e.Address.Addr().Is4() {
				s.SlotsV4 = append(s.SlotsV4, e.ID)
			} else {
				s.SlotsV6 = append(s.SlotsV6, e.ID)
			}
		}
	}
	return s
}

// endpoint has an address of its id's own.
func endpoint(id, weight int) plan.Endpoint {
	ip := netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)})
	return plan.Endpoint{ID: lb.EndpointID(id), Endpoint: lb.Endpoint{Address: netip.AddrPortFrom(ip, 8080), Weight: uint16(weight)}}
}

func endpoint6(id, weight int) plan.Endpoint {
	e := endpoint(id, weight)
	ip := netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(id >> 8), 15: byte(id)})
	e.Address = netip.AddrPortFrom(ip, 8080)
	return e
}

// vipOf is a VIP by number.
func vipOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 254, byte(n >> 8), byte(n)}), 80)
}

// routed1 is the route of one service in a table of its own.
func routed1(policy lb.Policy, endpoints ...plan.Endpoint) (*Table, *Route) {
	t := New()
	t.Publish(&plan.Desired{Services: []*plan.Service{service(1, policy, []netip.AddrPort{vipOf(1)}, endpoints...)}})
	return t, t.Route(vipOf(1))
}

func seeded() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
