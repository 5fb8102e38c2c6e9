package health

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// localService makes a service whose first endpoint is of a local task, at addr.
func localService(t *testing.T, addr netip.AddrPort, state lb.State) (*Prober, *target) {
	t.Helper()
	s := service("orders", tcpCheck(3, 1), 1)
	e := &s.Endpoints[0]
	e.Address, e.Task, e.State = addr, "web", state
	p := New(Params{})
	p.SetTargets(desired(s))
	return p, p.targets[1]
}

// An address of the task's own is probed from inside, where somebody else
// answers than outside; any other from the node.
func TestLocalTaskIsProbedFromInside(t *testing.T) {
	h := newNamespace(t)
	addr := closedPort(t)
	var l net.Listener
	inside(t, h, func() (err error) { l, err = net.Listen("tcp", addr.String()); return })
	defer l.Close()
	p, tg := localService(t, addr, lb.StatePending)
	want(t, p.attempt(t.Context(), tg), resultNoCaller, "not open yet")
	p.params.Task = func(name string) *netns.Handle {
		if name != "web" {
			t.Errorf("asked for the namespace of %s", name)
		}
		return h
	}
	want(t, p.attempt(t.Context(), tg), resultSuccess, "connected")
	p.params.Task = func(string) *netns.Handle { return newNamespace(t) }
	want(t, p.attempt(t.Context(), tg), resultConnect, "connection refused")

	// In bridge mode the address is the node's: a namespace without it.
	outside, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	inside(t, h, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0) })
	p, tg = localService(t, netip.MustParseAddrPort(outside.Addr().String()), lb.StatePending)
	p.params.Task = func(string) *netns.Handle { return h }
	want(t, p.attempt(t.Context(), tg), resultSuccess, "connected")

	closed := newNamespace(t)
	closed.Close()
	p.params.Task = func(string) *netns.Handle { return closed }
	want(t, p.attempt(t.Context(), tg), resultLocal, "enter netns")
}

func TestOwns(t *testing.T) {
	h := newNamespace(t)
	if owned, err := owns(nil, netip.MustParseAddr("127.0.0.1")); !owned || err != nil {
		t.Errorf("owns 127.0.0.1: %v, %v", owned, err)
	}
	for addr, want := range map[string]bool{"127.0.0.1": true, "::1": true, "192.0.2.1": false, "2001:db8::1": false} {
		if got, err := owns(h, netip.MustParseAddr(addr)); got != want || err != nil {
			t.Errorf("owns %s: %v, %v", addr, got, err)
		}
	}
}

// Endpoints that their own side speaks for are no targets, until it no longer
// does.
func TestDeclaredAreNoTargets(t *testing.T) {
	p := New(Params{})
	s := service("orders", tcpCheck(1, 1), 1, 2, 3, 4)
	s.Endpoints[0].Declared = lb.DeclaredHealthy
	s.Endpoints[1].Declared = lb.DeclaredPending
	s.Endpoints[2].Declared, s.Endpoints[2].Task = lb.DeclaredHealthy, "web"
	p.SetTargets(desired(s))
	if p.targets[1] != nil || p.targets[2] != nil || p.targets[3] == nil || p.targets[4] == nil {
		t.Errorf("targets %v, want 3 and 4", p.targets)
	}
	next := service("orders", tcpCheck(1, 1), 1, 2, 3, 4)
	next.Endpoints[3].Declared = lb.DeclaredUnhealthy
	p.SetTargets(desired(next))
	if p.targets[1] == nil || p.targets[2] == nil || p.targets[3] == nil || p.targets[4] != nil {
		t.Errorf("targets %v, want 1 to 3", p.targets)
	}
}

// A local endpoint that starts slowly is probed every second, and one success
// makes it healthy whatever failed before; after that all is as for others.
func TestLocalTaskThatStarts(t *testing.T) {
	own, err := netns.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		w := run(t, func(ctx context.Context, a attempt) outcome {
			if up.Load() {
				return well(ctx, a)
			}
			return dead(ctx, a)
		}, func(p *Params) { p.Task = func(string) *netns.Handle { return own } })
		s := service("orders", tcpCheck(3, 2), 1)
		s.Endpoints[0].Address = netip.MustParseAddrPort("127.0.0.1:1")
		s.Endpoints[0].Task, s.Endpoints[0].State = "web", lb.StatePending
		w.SetTargets(desired(s))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := w.all(); n < 18 || n > 23 {
			t.Errorf("%d probes in 20 s, want one a second", n)
		}
		up.Store(true)
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		want := []lb.VerdictChange{
			{Endpoint: 1, Verdict: lb.VerdictUnhealthy, Reason: "connect: connection refused"},
			{Endpoint: 1, Verdict: lb.VerdictHealthy, Reason: "connected"},
		}
		if got := w.takeChanges(); !slices.Equal(got, want) {
			t.Errorf("reported %v, want %v", got, want)
		}
		before := w.all()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := w.all() - before; n > 4 {
			t.Errorf("%d probes in 30 s after it started, want one every 10 s", n)
		}
	})
}

// What was known of the task that had the address before is not the new one's.
func TestAddressChangesHands(t *testing.T) {
	p, tg := localService(t, address(1), lb.StateActive)
	tg.record(outcome{resultSuccess, "connected"}, 0, 0)
	s := service("orders", tcpCheck(3, 1), 1)
	s.Endpoints[0].Task, s.Endpoints[0].State = "other", lb.StatePending
	p.SetTargets(desired(s))
	if got := p.targets[1]; got == tg || !tg.gone || got.verdict != lb.VerdictUnknown || !got.fresh {
		t.Errorf("the new task's target is %+v", got)
	}
}
