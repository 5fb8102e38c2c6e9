package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// blackHole is an address whose packets vanish: the neighbour entry names a
// machine that is not there, so no ICMP error comes back either.
var blackHole = netip.MustParseAddrPort("10.66.0.250:8080")

func vanish(t *testing.T, h *testutil.Host) {
	t.Helper()
	out, err := h.Command(t.Context(), "ip", "neigh", "replace", blackHole.Addr().String(),
		"lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent").CombinedOutput()
	if err != nil {
		t.Fatalf("ip neigh: %s\n%s", err, out)
	}
}

// knock opens n connections at once from a client and gives each a time.
func knock(h *testutil.Host, address string, n int, within time.Duration) (failed int) {
	errs := make(chan error, n)
	for range n {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), within)
			defer cancel()
			conn, err := h.Dial(ctx, "tcp", address)
			if err == nil {
				conn.Close()
			}
			errs <- err
		}()
	}
	for range n {
		if <-errs != nil {
			failed++
		}
	}
	return failed
}

// untilStruck is as long as a connect takes to be counted, until its SYN is sent
// again after a second, on a machine that may be slow to begin it.
const untilStruck = 4 * time.Second

// TestBlackHole: one client that runs into a black hole avoids it alone, a
// second one has it ejected for all, each within seconds.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	api, third := s.another("api", "prod"), s.another("third", "prod")
	for _, h := range []*testutil.Host{s.web, api, third} {
		vanish(t, h)
	}
	s.begin(fmt.Sprintf(`  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    endpoints: [{address: $a, port: 8080}, {address: %s, port: %d}]
`, blackHole.Addr(), blackHole.Port()))
	address := s.at80("orders")
	avoidedBy := func() (who []string, state string) {
		e := s.endpoints("prod/orders")[blackHole]
		return e.AvoidedBy, e.State
	}

	begun := time.Now()
	if failed := knock(s.web, address, 16, untilStruck); failed < 5 || failed > 11 {
		t.Errorf("%d of 16 failed before anything was known, want half", failed)
	}
	s.eventually(5*time.Second, func() error {
		if who, state := avoidedBy(); !slices.Equal(who, []string{"web"}) || state != "active" {
			return fmt.Errorf("avoided by %v, %s, want by web alone", who, state)
		}
		return nil
	})
	t.Logf("avoided by its client after %s", time.Since(begun).Round(10*time.Millisecond))
	if failed := knock(s.web, address, 20, 2*time.Second); failed > 0 {
		t.Errorf("web: %d of 20 failed after the ejection", failed)
	}
	// The negative control: for the others nothing has changed.
	if failed := knock(third, address, 8, 300*time.Millisecond); failed == 0 {
		t.Error("third: none of 8 failed: one client must not eject for another")
	}

	knock(api, address, 16, untilStruck)
	s.inState("prod/orders", blackHole, "ejected")
	if failed := knock(third, address, 20, 2*time.Second); failed > 0 {
		t.Errorf("third: %d of 20 failed after two clients agreed", failed)
	}
	if n := s.metric("connectd_ejections_total", "service", "orders"); n != 1 {
		t.Errorf("%v ejections counted, want 1", n)
	}
	// It outlives a restart.
	s.daemon.kill()
	if failed := knock(third, address, 10, 2*time.Second); failed > 0 {
		t.Errorf("third: %d of 10 failed while the daemon is dead", failed)
	}
	s.start()
	if _, state := avoidedBy(); state != "ejected" {
		t.Errorf("after a restart it is %s", state)
	}
}

// TestRefusedIsEjected: failures that come at once count too, and a run of
// them that a success interrupts does not.
func TestRefusedIsEjected(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	dead := netip.AddrPortFrom(s.servers["a"].Addr4(), 8081)
	s.begin(fmt.Sprintf(`  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    outlier: {baseEjectionSeconds: 1.5, maxEjectionSeconds: 60}
    endpoints: [{address: $a, port: 8080}, {address: %s, port: 8081}]
`, dead.Addr()))
	address := s.at80("orders")
	if failed := knock(s.web, address, 20, 2*time.Second); failed < 5 {
		t.Errorf("%d of 20 failed, want at least the 5 that eject", failed)
	}
	s.eventually(5*time.Second, func() error {
		if e := s.endpoints("prod/orders")[dead]; !slices.Equal(e.AvoidedBy, []string{"web"}) {
			return fmt.Errorf("avoided by %v", e.AvoidedBy)
		}
		return nil
	})
	if got := spread(s.web, "tcp", address, 10); got["a"] != 10 {
		t.Errorf("ejected: %v", got)
	}
	// The time ends; the server has come up meanwhile.
	s.servers["a"].ServeName("late", dead.String())
	s.eventually(10*time.Second, func() error {
		if got := spread(s.web, "tcp", address, 4); got["late"] == 0 {
			return fmt.Errorf("not back: %v", got)
		}
		return nil
	})
}
