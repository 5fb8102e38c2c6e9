package control

import (
	"fmt"
	"net/netip"
	"testing"

	"connectd/pkg/lb"
)

// BenchmarkEndpoints asks for all endpoints of 10,000 services of 10, server
// and client together.
func BenchmarkEndpoints(b *testing.B) {
	var list []Endpoint
	for i := range 100_000 {
		e := newNode().endpoints[1]
		e.Service = fmt.Sprintf("prod/service-%d", i/10)
		e.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080)
		list = append(list, e)
	}
	backend := newNode().backend()
	backend.Endpoints = func(lb.ServiceName) []Endpoint { return list }
	c := serving(b, backend)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := c.Endpoints(b.Context(), EndpointFilter{}); err != nil || len(got) != len(list) {
			b.Fatal(len(got), err)
		}
	}
}
