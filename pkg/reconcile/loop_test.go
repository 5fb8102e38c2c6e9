package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var (
	web     = lb.Task{Name: "web", Namespaces: []string{"prod"}, NetnsCookie: 7}
	ordersA = netip.MustParseAddrPort("10.0.0.1:80")
	orders  = lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}
)

// begin starts with two services and a task, and waits for the first plan.
func (r *rig) begin() {
	r.setCatalog(service("orders", "10.0.0.1:80", "10.0.0.2:80"), service("cache", "10.0.0.3:80"))
	r.setTasks(web)
	r.start()
	<-r.InForce()
	synctest.Wait()
	r.takeCalls()
}

func TestFirstPlanOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.setCatalog(service("orders", "10.0.0.1:80"))
		r.setTasks(web)
		begun := time.Now()
		r.start()
		<-r.InForce()
		if d := time.Since(begun); d != 0 {
			t.Errorf("the first plan waited %s", d)
		}
		synctest.Wait()
		if got := strings.Join(r.takeCalls(), " "); got != "append apply attach resync publish" {
			t.Errorf("called %s", got)
		}
		if d := r.Desired(); len(d.Services) != 1 || len(d.Tasks) != 1 || d.Revision != r.Loop.Status().Revision {
			t.Errorf("in force is %+v", d)
		}
		r.remembers()

		// A later plan leaves the programs and what nobody changed alone.
		r.setCatalog(service("orders", "10.0.0.1:80", "10.0.0.2:80"))
		time.Sleep(time.Second)
		if got := strings.Join(r.takeCalls(), " "); got != "append apply publish" {
			t.Errorf("called %s for a change", got)
		}
	})
}

// TestFirstPlanFails: whatever step fails is made again a second later, and
// nothing is published before all were made.
func TestFirstPlanFails(t *testing.T) {
	for step, want := range map[string]string{
		"append": "append append apply attach resync publish",
		"apply":  "append apply apply attach resync publish",
		"entry":  "append apply apply attach resync publish",
		"attach": "append apply attach apply attach resync publish",
		"resync": "append apply attach resync apply attach resync publish",
	} {
		t.Run(step, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.kernel.setFault(func(s string) error {
					if s == step {
						return errFault
					}
					return nil
				})
				if step == "append" {
					r.journal.fail(errFault)
				}
				r.catalog = []*lb.Service{service("orders", "10.0.0.1:80")}
				begun := time.Now()
				r.start()
				synctest.Wait()
				select {
				case <-r.InForce():
					t.Fatal("in force in spite of the fault")
				default:
				}
				s := r.Loop.Status()
				if s.Errors != 1 || !strings.Contains(s.Error, errFault.Error()) || !s.ErrorAt.Equal(begun) || !s.LastSuccess.IsZero() || r.Desired() != nil {
					t.Errorf("status after the fault: %+v", s)
				}
				r.kernel.setFault(func(string) error { return nil })
				r.journal.fail(nil)
				<-r.InForce()
				if d := time.Since(begun); d != retryInterval {
					t.Errorf("tried again after %s", d)
				}
				synctest.Wait()
				if got := strings.Join(r.takeCalls(), " "); got != want {
					t.Errorf("called %s\n  want %s", got, want)
				}
				if s := r.Loop.Status(); s.Error != "" || s.Errors != 1 || s.Lag != 0 {
					t.Errorf("status after the retry: %+v", s)
				}
				r.remembers()
			})
		})
	}
}

// TestAppendFailsThroughManyPlans: the lines of plans that never came into
// force are written with the next that does.
func TestAppendFailsThroughManyPlans(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		r.journal.fail(errFault)
		r.setCatalog(service("orders", "10.0.0.1:80"), service("new", "10.0.0.9:80"))
		time.Sleep(2500 * time.Millisecond)
		r.setCatalog(service("newer", "10.0.0.8:80"), service("new", "10.0.0.7:80"))
		time.Sleep(2500 * time.Millisecond)
		if calls := r.takeCalls(); slices.Contains(calls, "apply") {
			t.Errorf("the kernel was written before the journal: %s", calls)
		}
		r.journal.fail(nil)
		time.Sleep(retryInterval + 2*passInterval)
		r.remembers()
		if second := r.plans()[1]; !slices.ContainsFunc(second.Services, func(s *plan.Service) bool { return s.Name.DiscoveryName == "newer" }) {
			t.Error("a plan that was overtaken came into force")
		}
	})
}

// TestTornApply: a plan that was written in part and then taken back leaves
// nothing. The difference between the plans around it is empty.
func TestTornApply(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		entries := 0
		r.kernel.setFault(func(step string) error {
			if step == "entry" {
				if entries++; entries == 4 {
					return errFault
				}
			}
			return nil
		})
		heavy := service("orders", "10.0.0.1:80", "10.0.0.2:80")
		heavy.Endpoints[0].Weight = 3
		r.setCatalog(heavy, service("cache", "10.0.0.3:80"), service("torn", "10.0.0.5:80"))
		r.setTasks(web, lb.Task{Name: "job", Namespaces: []string{"prod"}, NetnsCookie: 8})
		time.Sleep(2 * passInterval)
		if r.Loop.Status().Errors != 1 {
			t.Fatalf("nothing was torn after %d entries", entries)
		}
		r.setCatalog(service("orders", "10.0.0.1:80", "10.0.0.2:80"), service("cache", "10.0.0.3:80"))
		r.setTasks(web)
		time.Sleep(3 * time.Second)
		if err := r.kernel.holds(r.Desired()); err != nil {
			t.Error(err)
		}
		if s := r.Loop.Status(); s.Error != "" || len(r.Desired().Tasks) != 1 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestBurst: a thousand inputs in 100 ms cost a pass each 10 ms, the first at
// once.
func TestBurst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		time.Sleep(time.Second)
		before := r.Loop.Status().Passes
		id := r.Desired().Services[1].Endpoints[0].ID
		r.Loop.Strike(lb.Strike{Endpoint: id, Task: 1, Count: 1, At: time.Now()})
		synctest.Wait()
		if n := r.Loop.Status().Passes - before; n != 1 {
			t.Errorf("the first input made %d passes at once, want 1", n)
		}
		for range 1000 {
			time.Sleep(100 * time.Microsecond)
			r.Loop.Strike(lb.Strike{Endpoint: id, Task: 1, Count: 1, At: time.Now()})
		}
		time.Sleep(passInterval)
		if n := r.Loop.Status().Passes - before; n < 10 || n > 12 {
			t.Errorf("%d passes for 1000 inputs in 100 ms, want about 11", n)
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		block := make(chan struct{})
		r.kernel.setBlock(block)
		answer := make(chan error, 1)
		go func() { answer <- r.Loop.Drain(context.Background(), orders, ordersA, true) }()
		synctest.Wait()
		select {
		case err := <-answer:
			t.Fatalf("returned before the plan is in force: %v", err)
		default:
		}
		close(block)
		if err := <-answer; err != nil {
			t.Fatal(err)
		}
		// Drain has returned: no waiting here.
		if e := r.Desired().Services[1].Endpoints[0]; e.State != lb.StateDraining {
			t.Errorf("the endpoint is %s", e.State)
		}

		if err := r.Loop.Drain(context.Background(), orders, netip.MustParseAddrPort("10.9.9.9:1"), true); err == nil {
			t.Error("an endpoint that is not there was drained")
		}
		if s := r.Loop.Status(); s.Errors != 0 {
			t.Errorf("a wrong command counts as an error of the loop: %+v", s)
		}

		r.kernel.setFault(func(step string) error { return errFault })
		if err := r.Loop.Drain(context.Background(), orders, ordersA, false); !errors.Is(err, errFault) {
			t.Errorf("a drain that is not in force says %v", err)
		}
		r.kernel.setFault(func(step string) error { return nil })
		time.Sleep(retryInterval + 2*passInterval)
		if e := r.Desired().Services[1].Endpoints[0]; e.State != lb.StateActive {
			t.Errorf("the endpoint is %s after the retry", e.State)
		}
	})
}

// TestDrainWithoutLoop: nobody waits for a loop that does not run.
func TestDrainWithoutLoop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.Loop.Drain(ctx, orders, ordersA, true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before Run: %v", err)
		}
		r.begin()
		r.stop()
		if err := r.Loop.Drain(context.Background(), orders, ordersA, true); !errors.Is(err, errEnded) {
			t.Errorf("after Run: %v", err)
		}
	})
}

// TestWatch: connections of a removed endpoint are counted each second, and
// when the last has ended it leaves the plan.
func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		id := r.Desired().Services[1].Endpoints[1].ID
		r.kernel.setActive(id, 1)
		r.setCatalog(service("orders", "10.0.0.1:80"), service("cache", "10.0.0.3:80"))
		time.Sleep(100 * time.Millisecond)
		if d := r.Desired(); !slices.Contains(d.Watch, id) || d.Services[1].Endpoints[1].State != lb.StateRemoved {
			t.Fatalf("watched are %v", d.Watch)
		}
		r.kernel.takeAsked()
		time.Sleep(10 * time.Second)
		if n := r.kernel.takeAsked(); n < 9 || n > 11 {
			t.Errorf("asked %d times in 10 s", n)
		}
		r.kernel.setActive(id, 0)
		time.Sleep(1100 * time.Millisecond)
		if n := len(r.Desired().Services[1].Endpoints); n != 1 {
			t.Errorf("%d endpoints a second after the last connection ended", n)
		}
		time.Sleep(time.Minute) // its id rests, and then nothing is watched
		r.kernel.takeAsked()
		time.Sleep(10 * time.Second)
		if n := r.kernel.takeAsked(); n != 0 || len(r.Desired().Watch) != 0 {
			t.Errorf("asked %d times though nothing is watched", n)
		}
	})
}

// TestWake: a deadline is met to the millisecond though nothing comes in.
func TestWake(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		id := r.Desired().Services[1].Endpoints[0].ID
		r.kernel.setActive(id, 1)
		if err := r.Loop.Drain(context.Background(), orders, ordersA, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(drainTime - time.Millisecond)
		if got := r.Desired().Terminate; len(got) != 0 {
			t.Errorf("terminates %v before the deadline", got)
		}
		time.Sleep(time.Millisecond)
		time.Sleep(passInterval)
		if got := r.Desired().Terminate; !slices.Equal(got, []lb.EndpointID{id}) {
			t.Errorf("terminates %v after the deadline", got)
		}
	})
}
