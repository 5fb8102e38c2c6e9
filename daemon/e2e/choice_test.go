package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestWeights: 1 to 3, by every policy that has no state.
func TestWeights(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("rr", "", "a", "b, weight: 3"),
		service("rnd", "loadBalancing: {policy: random}", "a", "b, weight: 3"))
	const times = 400
	for _, tc := range []struct {
		name        string
		least, most int
	}{
		{"rr", 95, 105},  // each CPU goes round on its own
		{"rnd", 55, 145}, // 5 standard deviations of 8.7
	} {
		got := spread(s.web, "tcp", s.at80(tc.name), times)
		if got["a"] < tc.least || got["a"] > tc.most || got["a"]+got["b"] != times {
			t.Errorf("%s: %v, want about 100 to 300", tc.name, got)
		}
	}
}

// TestLeastConnections: the idle endpoint gets what the busy one does not.
func TestLeastConnections(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("orders", "loadBalancing: {policy: leastConnections}", "a", "b"))
	address := s.at80("orders")
	if _, err := s.control().Drain(context.Background(), "prod/orders", s.endpoint("b")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if c := hold(t, s.web, address); c.server != "a" {
			t.Fatalf("b is draining and got a connection")
		}
	}
	if _, err := s.control().Undrain(context.Background(), "prod/orders", s.endpoint("b")); err != nil {
		t.Fatal(err)
	}
	// Two choices of two endpoints are both a in a quarter of the cases.
	if got := spread(s.web, "tcp", address, 200); got["b"] < 130 || got["a"]+got["b"] != 200 {
		t.Errorf("with 20 connections held to a: %v", got)
	}
}

// TestSourceHash: a client stays, clients differ.
func TestSourceHash(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b", "c")
	clients := []*testutil.Host{s.web}
	for i := range 7 {
		clients = append(clients, s.another(fmt.Sprintf("web%d", i), "prod"))
	}
	s.begin(service("orders", "loadBalancing: {policy: sourceHash}", "a", "b", "c"))
	address := s.at80("orders")
	choice := func() (of []string) {
		for _, h := range clients {
			got := spread(h, "tcp", address, 5)
			if len(got) != 1 {
				t.Errorf("%s is sent to %v", h.Name(), got)
			}
			for name := range got {
				of = append(of, name)
			}
		}
		return of
	}
	before := choice()
	seen := map[string]bool{}
	for _, name := range before {
		seen[name] = true
	}
	if len(seen) < 2 {
		t.Errorf("8 clients are all sent to %v", before)
	}
	s.daemon.kill()
	s.start()
	if after := choice(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a restart moves clients: %v, before %v", after, before)
	}
	// Without c, only those that were with c move.
	s.catalog(service("orders", "loadBalancing: {policy: sourceHash}", "a", "b"))
	s.gone("prod/orders", s.endpoint("c"))
	for i, name := range choice() {
		if name == "c" || before[i] != "c" && name != before[i] {
			t.Errorf("client %d goes from %s to %s when c is removed", i, before[i], name)
		}
	}
}

// gone waits until an endpoint takes no more connections: it is removed.
func (n *node) gone(service string, at netip.AddrPort) {
	n.Helper()
	n.eventually(10*time.Second, func() error {
		if e, ok := n.endpoints(service)[at]; ok && e.State != "removed" {
			return fmt.Errorf("%s of %s is %s", at, service, e.State)
		}
		return nil
	})
}

// TestZonePreference: traffic stays while the own zone has its share of the
// endpoints, and what is beyond it spills.
func TestZonePreference(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b", "c", "d")
	s.extra = "zone: z1\n"
	s.begin(
		service("stay", "", "a, zone: z1", "b, zone: z1", "c, zone: z2", "d, zone: z2"),
		service("spill", "", "a, zone: z1", "b, zone: z2", "c, zone: z2", "d, zone: z2"),
		service("few", "", "a, zone: z1", "c, zone: z2"),
	)
	if got := spread(s.web, "tcp", s.at80("stay"), 40); got["a"]+got["b"] != 40 || got["a"] < 10 || got["b"] < 10 {
		t.Errorf("2 of 4 in the zone: %v, want all of them in a and b", got)
	}
	// a is a quarter of the capacity for half of the callers: half stays.
	if got := spread(s.web, "tcp", s.at80("spill"), 120); got["a"] < 50 || got["a"] > 70 || got["b"] < 10 || got["c"] < 10 || got["d"] < 10 {
		t.Errorf("1 of 4 in the zone: %v, want half of them in a", got)
	}
	if got := spread(s.web, "tcp", s.at80("few"), 40); got["a"] < 15 || got["c"] < 15 {
		t.Errorf("fewer than 2 a zone: %v, want an even spread", got)
	}
}
