package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const benchEndpoints = 10 // of a service

// wideCatalog lists services of ten endpoints and four VIPs each, slots for each
// endpoint.
func wideCatalog(services, slots int) *plan.Desired {
	d := &plan.Desired{Tasks: []*plan.Task{{ID: 1, Scope: [lb.MaxNamespaces / 64]uint64{1}}}}
	http := &lb.HTTP{Retry: lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 3}}
	for i := range services {
		name := fmt.Sprintf("service-%05d", i)
		s := &plan.Service{
			Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP, HTTP: http},
			ID:      lb.ServiceID(i + 1),
		}
		for k := range 4 {
			v4 := netip.AddrFrom4([4]byte{127, 254, byte((4*i + k) >> 8), byte(4*i + k)})
			s.Names = append(s.Names, plan.Name{DNSName: fmt.Sprintf("%s-%d", name, k), V4: v4, Ports: []uint16{80}})
		}
		for k := range benchEndpoints {
			n := i*benchEndpoints + k
			address := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
			s.Endpoints = append(s.Endpoints, plan.Endpoint{
				ID: lb.EndpointID(n + 1), Endpoint: lb.Endpoint{Address: netip.AddrPortFrom(address, 8080), Weight: 1},
			})
		}
		for k := range slots {
			s.SlotsV4 = append(s.SlotsV4, s.Endpoints[k%benchEndpoints].ID)
		}
		d.Services = append(d.Services, s)
	}
	return d
}

// BenchmarkPublishWide is what a pass costs at 10,000 services of 10 endpoints.
func BenchmarkPublishWide(b *testing.B) {
	const services = 10_000
	d := wideCatalog(services, benchEndpoints)
	again := func(i int, change func(*plan.Service)) *plan.Desired {
		next := *d
		next.Services = slices.Clone(d.Services)
		s := *next.Services[i]
		change(&s)
		next.Services[i] = &s
		return &next
	}
	large := wideCatalog(1, 65537).Services[0]
	for _, bench := range []struct {
		name   string
		change func(*plan.Service)
	}{
		{"slots", func(s *plan.Service) { s.SlotsV4 = s.SlotsV4[:1+rand.IntN(benchEndpoints)] }},
		{"sourceHash", func(s *plan.Service) {
			s.SlotsV4 = make([]lb.EndpointID, len(large.SlotsV4))
			for i := range s.SlotsV4 {
				s.SlotsV4[i] = s.Endpoints[i%benchEndpoints].ID
			}
		}},
		{"VIPs", func(s *plan.Service) { s.Names = s.Names[:1+rand.IntN(4)] }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			t := New()
			t.Publish(d)
			var plans []*plan.Desired
			for range 16 {
				plans = append(plans, again(rand.IntN(services), bench.change))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t.Publish(plans[i%len(plans)])
			}
		})
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			New().Publish(d)
		}
	})
}

func BenchmarkRouteWide(b *testing.B) {
	d := wideCatalog(10_000, benchEndpoints)
	t := New()
	t.Publish(d)
	at := rand.Perm(10_000)
	vips := make([]netip.AddrPort, 1024)
	for i := range vips {
		vips[i] = netip.AddrPortFrom(d.Services[at[i]].Names[i%4].V4, 80)
	}
	for i := 0; b.Loop(); i++ {
		if t.Route(vips[i%len(vips)]) == nil || t.Task(1) == nil {
			b.Fatal("no route")
		}
	}
}
