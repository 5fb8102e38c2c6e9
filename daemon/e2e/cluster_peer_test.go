package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestClusterPeered: two networks with a router between them, as peered VPCs
// are, share a namespace: instances of either are called by their own
// addresses. When the way between them is cut no GET fails on either side, the
// far side's AWS being away with it, and the two are one again afterwards.
func TestClusterPeered(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t)
	w := testutil.NewWorld(t)
	far, router := w.Peer(netip.MustParsePrefix("10.67.0.0/24"), netip.MustParsePrefix("fd67::/64"))
	f := newFleet(newClusterIn(t, w, "A"))
	a, b := f.nodes["A"], f.join(far, "B")
	f.serve("near")
	f.serveIn(far, "far")
	f.publish(a, "", "near")
	f.publish(b, "", "far")
	f.start()
	f.active(a, "far", "near")
	f.active(b, "far", "near")
	methods := []string{http.MethodGet}
	stop := f.send(methods, a, b)
	f.got(50, []*member{a, b}, "near", "far")
	if err := router.SetLink(false); err != nil {
		t.Fatal(err)
	}
	f.got(200, []*member{a}, "near")
	f.got(200, []*member{b}, "far")
	sides := []struct {
		m           *member
		here, there string
	}{{a, "near", "far"}, {b, "far", "near"}}
	for _, side := range sides {
		side.m.eventually(10*time.Second, func() error {
			if e := side.m.endpoints("prod/orders")[f.at[side.there]]; e.State == "active" && len(e.AvoidedBy) == 0 {
				return fmt.Errorf("on %s nobody avoids %s", side.m.name, side.there)
			}
			return nil
		})
	}
	for name, got := range stop() {
		t.Logf("the client of %s: %+v", name, got)
		if len(got.Errors) > 0 || got.By["near"] == 0 || got.By["far"] == 0 || got.Slowest > 3*time.Second {
			t.Errorf("the client of %s saw %+v, want none failed, both servers, and none slower than 3s", name, got)
		}
	}
	if err := router.SetLink(true); err != nil {
		t.Fatal(err)
	}
	for _, side := range sides {
		f.active(side.m, "far", "near")
		side.m.eventually(20*time.Second, func() error { // the ejection's end
			stop := f.send(methods, side.m)
			f.got(20, []*member{side.m}, side.here)
			if got := stop()[side.m.name]; len(got.Errors) > 0 || got.By["near"] == 0 || got.By["far"] == 0 {
				return fmt.Errorf("the client of %s saw %+v, want both servers", side.m.name, got)
			}
			return nil
		})
	}
}
