package health

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

func TestFirstSuccessIsReportedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, well, nil)
		w.SetTargets(desired(service("none", nil, 100), service("orders", tcpCheck(3, 3), 1, 2, 3)))
		synctest.Wait()
		got := w.takeChanges()
		slices.SortFunc(got, func(a, b lb.VerdictChange) int { return int(a.Endpoint) - int(b.Endpoint) })
		want := []lb.VerdictChange{
			{Endpoint: 1, Verdict: lb.VerdictHealthy, Reason: "connected"},
			{Endpoint: 2, Verdict: lb.VerdictHealthy, Reason: "connected"},
			{Endpoint: 3, Verdict: lb.VerdictHealthy, Reason: "connected"},
		}
		if !slices.Equal(got, want) {
			t.Fatalf("reported %v\nwant %v", got, want)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.takeChanges(); got != nil {
			t.Errorf("reported %v though nothing changed", got)
		}
		if n := w.probes(1); n < 6 || n > 7 {
			t.Errorf("probed %d times in a minute, every 10 s", n)
		}
		if w.probes(100) != 0 {
			t.Error("probed an endpoint of a service without a check")
		}
		if w.results["success"] != w.all() {
			t.Errorf("observed %v, want %d successes", w.results, w.all())
		}
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, func(ctx context.Context, a attempt) outcome {
			time.Sleep(20 * time.Millisecond)
			return dead(ctx, a)
		}, nil)
		if _, ok := w.Status(1); ok {
			t.Error("a status before there are targets")
		}
		w.SetTargets(desired(service("orders", tcpCheck(2, 2), 1)))
		if s, ok := w.Status(1); !ok || s != (ProbeStatus{}) {
			t.Errorf("status before the first probe: %v %+v", ok, s)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		s, ok := w.Status(1)
		if ago := time.Since(s.At); ago < 3*time.Second || ago > 6*time.Second {
			t.Errorf("the last probe was %s ago, want 4 to 6 s", ago)
		}
		s.At = time.Time{}
		want := ProbeStatus{
			Verdict: lb.VerdictUnhealthy, Result: "connect", Reason: "connect: connection refused",
			Duration: 20 * time.Millisecond, Failures: 2,
		}
		if !ok || s != want {
			t.Errorf("status %+v\nwant %+v", s, want)
		}
	})
}

func TestManyFirstProbesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, well, nil)
		w.SetTargets(desired(service("orders", tcpCheck(1, 1), ids(1000)...)))
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if n := w.all(); n < 480 || n > 520 {
			t.Errorf("%d of 1000 first probes in the first half of a second", n)
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if n := w.all(); n != 1000 {
			t.Errorf("%d of 1000 first probes in the first second", n)
		}
		w.SetTargets(desired(service("orders", tcpCheck(1, 1), ids(1010)...)))
		synctest.Wait()
		if n := w.all(); n != 1010 {
			t.Errorf("a few new targets were not probed at once: %d probes, want 1010", n)
		}
		if s := w.Stats(); s.Targets != 1010 || s.Late != 0 || s.InFlight != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, hang, func(p *Params) { p.MaxConcurrent = 8 })
		w.SetTargets(desired(service("hole", tcpCheck(1, 1), ids(100)...)))
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.most != 8 {
			t.Errorf("%d probes ran at once, bound is 8", w.most)
		}
		if w.Stats().Late == 0 {
			t.Error("100 targets waited for 8 slots and none was counted late")
		}
		for id := range lb.EndpointID(100) {
			if w.probes(id+1) == 0 {
				t.Errorf("endpoint %d was starved", id+1)
			}
		}
	})
}

// A dead node's endpoints, many times what the slots can wait for, must not
// delay those that answer.
func TestBlackHolesDelayNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		living := address(1)
		w := run(t, func(ctx context.Context, a attempt) outcome {
			if a.addr == living {
				return well(ctx, a)
			}
			return hang(ctx, a)
		}, func(p *Params) { p.MaxConcurrent = 8 })
		w.SetTargets(desired(service("a", tcpCheck(1, 1), 1), service("hole", tcpCheck(1, 1), ids(500)[1:]...)))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		var longest time.Duration
		times := w.begun[living]
		// Until each black hole has timed out once, it is not known as one.
		for i := 1; i < len(times); i++ {
			if times[i] > 90*time.Second {
				longest = max(longest, times[i]-times[i-1])
			}
		}
		if longest == 0 || longest > 11*time.Second+time.Millisecond {
			t.Errorf("a living endpoint was probed up to %s apart, want 11 s at most", longest)
		}
	})
}

func TestWithoutACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var caller atomic.Pointer[netns.Handle]
		var asked atomic.Int32
		w := run(t, well, func(p *Params) {
			p.Caller = func(ns lb.NamespaceID) *netns.Handle {
				asked.Store(int32(ns))
				return caller.Load()
			}
		})
		hc := tcpCheck(1, 1)
		hc.From = lb.FromCaller
		s := service("orders", hc, 1, 2)
		s.Endpoints[1].Verdict = lb.VerdictUnhealthy
		w.SetTargets(desired(s))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if w.all() != 0 || w.takeChanges() != nil || asked.Load() != 3 {
			t.Fatalf("%d probes without a caller", w.all())
		}
		if s, _ := w.Status(1); s.Result != "no_caller" || s.Reason == "" {
			t.Errorf("status %+v does not say why", s)
		}
		caller.Store(&netns.Handle{})
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := w.takeChanges(); len(got) != 2 {
			t.Errorf("reported %v a second after a caller came, want both healthy", got)
		}
	})
}

func TestLocalFaultsAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := run(t, func(context.Context, attempt) outcome {
			return outcome{resultLocal, "make socket: too many open files"}
		}, func(p *Params) { p.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		w.SetTargets(desired(service("orders", tcpCheck(1, 1), ids(50)...)))
		time.Sleep(119 * time.Second)
		w.stop()
		if got := w.takeChanges(); got != nil {
			t.Errorf("reported %v on a local fault", got)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[1], "too many open files") {
			t.Errorf("%d log lines in two minutes, want 2: %s", len(lines), lines)
		}
		if s := w.Stats(); s.Local != uint64(w.results["local"]) || s.Local < 500 {
			t.Errorf("%d local faults counted, %d observed", s.Local, w.results["local"])
		}
	})
}

// A daemon that was stopped finds its timers long past when it goes on. That
// is no endpoint's fault.
func TestAStallIsALocalFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, func(ctx context.Context, a attempt) outcome {
			time.Sleep(1600 * time.Millisecond) // of a timeout of 1 s
			return hang(ctx, a)
		}, nil)
		w.SetTargets(desired(service("orders", tcpCheck(1, 1), 1)))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s, _ := w.Status(1); s.Result != "local" || s.Verdict != lb.VerdictUnknown {
			t.Errorf("status %+v, want a local fault", s)
		}
	})
}

func TestReportMayBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy atomic.Bool
		healthy.Store(true)
		release := make(chan struct{})
		var calls atomic.Int32
		var last []lb.VerdictChange
		w := run(t, func(ctx context.Context, a attempt) outcome {
			if a.addr != address(1) || healthy.Load() {
				return well(ctx, a)
			}
			return dead(ctx, a)
		}, func(p *Params) {
			p.MaxConcurrent = 1
			p.Report = func(c []lb.VerdictChange) {
				if calls.Add(1) == 1 {
					<-release
				}
				last = c
			}
		})
		w.SetTargets(desired(service("a", tcpCheck(1, 1), 1)))
		synctest.Wait() // Report holds "1 healthy"
		w.SetTargets(desired(service("a", tcpCheck(1, 1), ids(9)...)))
		healthy.Store(false)
		time.Sleep(20 * time.Second) // 1 turns unhealthy
		healthy.Store(true)
		time.Sleep(20 * time.Second) // and healthy again
		synctest.Wait()
		if n := w.probes(1); n < 4 {
			t.Fatalf("a Report that blocks held probes up: %d in 40 s", n)
		}
		close(release)
		synctest.Wait()
		if calls.Load() != 2 || len(last) != 8 || slices.ContainsFunc(last, func(c lb.VerdictChange) bool { return c.Endpoint == 1 }) {
			t.Errorf("call %d reported %v, want call 2 with the eight others", calls.Load(), last)
		}
	})
}

func TestStopVoidsProbesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := run(t, hang, nil)
		w.SetTargets(desired(service("orders", tcpCheck(1, 1), ids(200)...)))
		time.Sleep(100 * time.Millisecond)
		before := time.Now()
		w.stop()
		if time.Since(before) != 0 {
			t.Errorf("Run took %s to end", time.Since(before))
		}
		if got := w.takeChanges(); got != nil || len(w.results) != 0 || w.Stats().InFlight != 0 {
			t.Errorf("reported %v, observed %v, %d in flight", got, w.results, w.Stats().InFlight)
		}
		w.SetTargets(desired()) // must not hang or panic
	})
}
