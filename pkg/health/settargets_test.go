package health

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func TestUnchangedTargetsAreNotDisturbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, dead, nil)
		hc := tcpCheck(2, 3)
		w.SetTargets(desired(service("orders", hc, 1, 2)))
		synctest.Wait()
		due := w.targets[1].due
		copied := *hc // a reload decodes the same words again
		next := service("orders", &copied, 1, 3)
		next.Endpoints[0].State = lb.StateDraining
		next.Endpoints[0].Weight = 7
		w.SetTargets(desired(next))
		synctest.Wait()
		if s, _ := w.Status(1); s.Failures != 1 || w.targets[1].due != due || w.probes(1) != 1 {
			t.Errorf("an unchanged target was disturbed: %+v", s)
		}
		if _, ok := w.Status(2); ok {
			t.Error("an endpoint that is gone is still a target")
		}
		if w.probes(3) != 1 {
			t.Error("a new endpoint was not probed at once")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.probes(2) != 1 {
			t.Error("an endpoint that is gone was probed")
		}
		if w.probes(1) < 6 {
			t.Error("a draining endpoint is no longer probed")
		}
	})
}

func TestChangedCheckStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		well.Store(true)
		w := run(t, func(ctx context.Context, a attempt) outcome {
			if well.Load() {
				return outcome{resultSuccess, "connected"}
			}
			return dead(ctx, a)
		}, nil)
		w.SetTargets(desired(service("orders", tcpCheck(2, 2), 1)))
		synctest.Wait()
		well.Store(false)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if s, _ := w.Status(1); s.Failures != 1 || s.Verdict != lb.VerdictHealthy {
			t.Fatalf("status %+v, want one failure", s)
		}
		w.takeChanges()
		// The plan's own copy of the verdict lags: ours is kept.
		changed := tcpCheck(2, 2)
		changed.Path = "/other"
		w.SetTargets(desired(service("orders", changed, 1)))
		synctest.Wait()
		if s, _ := w.Status(1); s.Failures != 1 || s.Verdict != lb.VerdictHealthy || w.probes(1) != 3 {
			t.Errorf("after the change: %d probes, status %+v; want 3 and a count that began again", w.probes(1), s)
		}
		time.Sleep(12 * time.Second)
		synctest.Wait()
		want := []lb.VerdictChange{{Endpoint: 1, Verdict: lb.VerdictUnhealthy, Reason: "connect: connection refused"}}
		if got := w.takeChanges(); !slices.Equal(got, want) {
			t.Errorf("reported %v, want %v", got, want)
		}
	})
}

func TestResultOfATargetThatIsGoneIsVoid(t *testing.T) {
	removed := service("orders", tcpCheck(1, 1), 1)
	removed.Endpoints[0].State = lb.StateRemoved
	for name, next := range map[string]*plan.Desired{
		"service gone":    desired(service("other", nil, 2)),
		"endpoint gone":   desired(service("orders", tcpCheck(1, 1), 2)),
		"removed":         desired(removed),
		"no check":        desired(service("orders", nil, 1)),
		"check changed":   desired(service("orders", tcpCheck(1, 99), 1)),
		"no services":     desired(),
		"services around": desired(service("a", nil), service("orders", nil, 1), service("z", nil)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := run(t, hang, nil)
				w.SetTargets(desired(service("orders", tcpCheck(1, 1), 1)))
				synctest.Wait()
				w.SetTargets(next)
				time.Sleep(1500 * time.Millisecond)
				synctest.Wait()
				for _, c := range w.takeChanges() {
					if c.Endpoint == 1 {
						t.Errorf("reported %v", c)
					}
				}
				if n := w.Stats().InFlight; n != 0 {
					t.Errorf("%d probes in flight long after their timeout", n)
				}
			})
		})
	}
}

func TestMergeOfServices(t *testing.T) {
	hc := tcpCheck(1, 1)
	a, b, c, d := service("a", hc, 1), service("b", hc, 2), service("c", hc, 3), service("d", nil, 4)
	p := New(Params{})
	for _, step := range []struct {
		services []*plan.Service
		targets  []lb.EndpointID
	}{
		{[]*plan.Service{b, d}, []lb.EndpointID{2}},
		{[]*plan.Service{a, b, c}, []lb.EndpointID{1, 2, 3}},
		{[]*plan.Service{a, c, d}, []lb.EndpointID{1, 3}},
		{[]*plan.Service{b, c}, []lb.EndpointID{2, 3}},
		{nil, nil},
		{[]*plan.Service{service("d", hc, 4, 5)}, []lb.EndpointID{4, 5}},
		{[]*plan.Service{service("d", hc, 5)}, []lb.EndpointID{5}},
	} {
		p.SetTargets(desired(step.services...))
		var got []lb.EndpointID
		for id := range p.targets {
			got = append(got, id)
		}
		slices.Sort(got)
		if !slices.Equal(got, step.targets) || len(p.sched.prompt) != len(step.targets) {
			t.Errorf("targets %v (%d queued), want %v", got, len(p.sched.prompt), step.targets)
		}
	}
}

func TestCheckPort(t *testing.T) {
	hc := tcpCheck(1, 1)
	hc.Port = 9000
	p := New(Params{})
	p.SetTargets(desired(service("orders", hc, 1)))
	if got := p.targets[1].addr.String(); got != "10.0.0.1:9000" {
		t.Errorf("probes %s, want the check's port", got)
	}
}
