package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// TestChurn changes services at random under probes with random ends, and
// checks that what was reported is what is known, and that no target is lost.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		var mu sync.Mutex
		roll := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return r.IntN(n)
		}
		said := make(map[lb.EndpointID]lb.Verdict)
		w := run(t, func(ctx context.Context, a attempt) outcome {
			time.Sleep(time.Duration(roll(300)) * time.Millisecond)
			switch roll(5) {
			case 0, 1:
				return dead(ctx, a)
			case 2:
				return hang(ctx, a)
			case 3:
				return outcome{resultLocal, "too many open files"}
			}
			return well(ctx, a)
		}, func(p *Params) {
			p.MaxConcurrent = 16
			p.Report = func(changes []lb.VerdictChange) {
				for _, c := range changes {
					if said[c.Endpoint] == c.Verdict {
						t.Errorf("reported %v again", c)
					}
					said[c.Endpoint] = c.Verdict
				}
			}
		})
		const services = 8
		current := make([]*plan.Service, services)
		listed := make(map[lb.EndpointID]bool)
		for range 300 {
			i := roll(services)
			hc := tcpCheck(2, uint32(1+roll(3)))
			hc.Interval = 2 * time.Second
			if roll(6) == 0 {
				hc = nil
			}
			var list []lb.EndpointID
			for k := range 10 {
				if roll(2) == 0 {
					list = append(list, lb.EndpointID(i*10+k+1))
				}
			}
			current[i] = service(string(rune('a'+i)), hc, list...)
			d, before := &plan.Desired{}, listed
			listed = make(map[lb.EndpointID]bool)
			for _, s := range current {
				if s == nil || roll(8) == 0 {
					continue
				}
				d.Services = append(d.Services, s)
				for k := range s.Endpoints {
					e := &s.Endpoints[k]
					if s.HealthCheck == nil {
						continue
					}
					listed[e.ID] = true
					if !before[e.ID] {
						delete(said, e.ID)
						e.Verdict = lb.VerdictUnknown
					}
				}
			}
			w.SetTargets(d)
			time.Sleep(time.Duration(roll(900)) * time.Millisecond)
			synctest.Wait()
			if got := w.Stats().Targets; got != len(listed) {
				t.Fatalf("%d targets, want %d", got, len(listed))
			}
			queued := len(w.sched.prompt) + len(w.sched.slow)
			for id := range listed {
				s, ok := w.Status(id)
				if !ok || s.Verdict != said[id] {
					t.Fatalf("endpoint %d: status %v %+v, reported %s", id, ok, s, said[id])
				}
				if w.targets[id].inFlight {
					queued++
				}
			}
			if queued != len(listed) {
				t.Fatalf("%d of %d targets queued or in flight", queued, len(listed))
			}
		}
		w.SetTargets(desired())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(w.sched.prompt)+len(w.sched.slow)+w.sched.inFlight+w.sched.slowInFlight != 0 || w.most > 16 {
			t.Errorf("something is left: %+v; %d ran at once", w.sched, w.most)
		}
	})
}

// TestRunForReal probes real sockets through everything, from the node and
// from a caller.
func TestRunForReal(t *testing.T) {
	h := newNamespace(t)
	addr := closedPort(t)
	var l net.Listener
	inside(t, h, func() (err error) { l, err = net.Listen("tcp", addr.String()); return })
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	changes := make(chan lb.VerdictChange, 10)
	p := New(Params{
		Log: slog.New(slog.DiscardHandler),
		Report: func(list []lb.VerdictChange) {
			for _, c := range list {
				changes <- c
			}
		},
		Caller: func(lb.NamespaceID) *netns.Handle { return h },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	fromCaller := tcpCheck(1, 1)
	fromCaller.From, fromCaller.Interval = lb.FromCaller, 20*time.Millisecond
	fromNode := tcpCheck(1, 1)
	a, b := service("a", fromCaller, 1), service("b", fromNode, 2)
	a.Endpoints[0].Address, b.Endpoints[0].Address = addr, addr
	p.SetTargets(desired(a, b))
	got := map[lb.EndpointID]lb.Verdict{}
	for range 2 {
		c := <-changes
		got[c.Endpoint] = c.Verdict
	}
	if got[1] != lb.VerdictHealthy || got[2] != lb.VerdictUnhealthy {
		t.Fatalf("got %v, want 1 healthy from the caller and 2 unhealthy from the node", got)
	}
	l.Close()
	<-accepted
	if c := <-changes; c != (lb.VerdictChange{Endpoint: 1, Verdict: lb.VerdictUnhealthy, Reason: "connect: connection refused"}) {
		t.Errorf("after the server ended: %v", c)
	}
}
