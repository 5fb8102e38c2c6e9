package reconcile

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLag is the age of the oldest input that is not in force.
func TestLag(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		lag := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := r.Loop.Status().Lag; got != want {
				t.Errorf("lag %s, want %s", got, want)
			}
		}
		r.begin()
		lag(0)
		time.Sleep(15 * time.Millisecond)

		// While a pass writes, its inputs are late, and then those that came
		// in meanwhile.
		block := make(chan struct{})
		r.kernel.setBlock(block)
		r.setCatalog(service("orders", "10.0.0.1:80"))
		time.Sleep(3 * time.Second)
		lag(3 * time.Second)
		r.setCatalog(service("orders", "10.0.0.2:80"))
		time.Sleep(time.Second)
		lag(4 * time.Second)
		next := make(chan struct{})
		r.kernel.setBlock(next)
		close(block)
		lag(time.Second)
		r.kernel.setBlock(nil)
		close(next)
		lag(0)

		// It grows through failures, from the first input on.
		time.Sleep(15 * time.Millisecond)
		r.kernel.setFault(func(string) error { return errFault })
		r.setCatalog(service("orders", "10.0.0.3:80"))
		time.Sleep(5*time.Second + 2*passInterval)
		r.setCatalog(service("orders", "10.0.0.4:80"))
		lag(5*time.Second + 2*passInterval)
		s := r.Loop.Status()
		if s.Errors != 6 {
			t.Errorf("%d errors in 5 s, want one a second", s.Errors)
		}
		// What is planned and what is in force can be told apart.
		if s.Planned <= s.Revision || r.Planned().Revision != s.Planned || r.Desired().Revision != s.Revision {
			t.Errorf("planned %d (%d), in force %d (%d)", s.Planned, r.Planned().Revision, s.Revision, r.Desired().Revision)
		}
		if r.Planned().Journal != nil || r.Desired().Journal != nil {
			t.Error("a journal that is on disk is kept in memory")
		}
		if n := r.logged.count("level=ERROR"); n != 1 {
			t.Errorf("the same error was logged %d times", n)
		}
		r.kernel.setFault(func(string) error { return nil })
		time.Sleep(retryInterval + 2*passInterval)
		lag(0)
		if n := r.logged.count("succeeds again"); n != 1 {
			t.Errorf("the end of the failures was logged %d times", n)
		}
	})
}

// TestLagOfADeadline: a plan that only time changed is late from when it was
// due.
func TestLagOfADeadline(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		r.kernel.setActive(r.Desired().Services[1].Endpoints[1].ID, 1)
		r.setCatalog(service("orders", "10.0.0.1:80"))
		time.Sleep(drainTime - time.Second)
		r.journal.fail(errFault)
		r.kernel.setFault(func(string) error { return errFault })
		r.kernel.setActive(r.Desired().Services[0].Endpoints[1].ID, 0) // so that it goes
		time.Sleep(4 * time.Second)
		if s := r.Loop.Status(); s.Error == "" || s.Lag < 3*time.Second || s.Lag > 5*time.Second {
			t.Errorf("status %+v", s)
		}
	})
}

func TestResync(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		time.Sleep(resyncInterval - time.Second)
		if n := len(r.takeCalls()); n != 0 {
			t.Fatalf("%d calls though nothing happened", n)
		}
		r.kernel.mu.Lock()
		r.kernel.stray = 3
		r.kernel.mu.Unlock()
		time.Sleep(2 * time.Second)
		if got := r.takeCalls(); len(got) != 1 || got[0] != "resync" {
			t.Errorf("called %s after 30 s", got)
		}
		if s := r.Loop.Status(); s.Repaired != 3 || s.Errors != 0 || r.logged.count("level=WARN") != 1 {
			t.Errorf("status after a repair: %+v, %d warnings", s, r.logged.count("level=WARN"))
		}

		// An error stays in the status until a resync has succeeded.
		r.kernel.setFault(func(step string) error {
			if step == "resync" {
				return errFault
			}
			return nil
		})
		time.Sleep(resyncInterval + 3*time.Second)
		if s := r.Loop.Status(); s.Error == "" || s.Errors < 3 || s.Lag != 0 {
			t.Errorf("status while it fails: %+v", s)
		}
		r.setCatalog(service("orders", "10.0.0.1:80"), service("cache", "10.0.0.3:80"), service("new", "10.0.0.4:80"))
		time.Sleep(retryInterval + passInterval)
		if n := len(r.Desired().Services); n != 3 {
			t.Errorf("a failing resync keeps plans out of force: %d services", n)
		}
		r.kernel.setFault(func(string) error { return nil })
		time.Sleep(retryInterval + 2*passInterval)
		if s := r.Loop.Status(); s.Error != "" || r.logged.count("succeeds again") != 1 {
			t.Errorf("status after it succeeded: %+v", s)
		}
	})
}

// TestCompactFails: the plan is in force all the same, and it is tried again.
func TestCompactFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		r.journal.mu.Lock()
		r.journal.tight = errFault
		r.journal.mu.Unlock()
		if err := r.Loop.Drain(t.Context(), orders, ordersA, true); err != nil {
			t.Errorf("drain: %s", err)
		}
		time.Sleep(3 * time.Second)
		if s := r.Loop.Status(); s.Error == "" || s.Revision != r.Desired().Revision || s.Lag != 0 {
			t.Errorf("status while it fails: %+v", s)
		}
		r.journal.mu.Lock()
		r.journal.tight = nil
		r.journal.mu.Unlock()
		time.Sleep(retryInterval + 2*passInterval)
		if s := r.Loop.Status(); s.Error != "" {
			t.Errorf("status after it succeeded: %+v", s)
		}
	})
}

// TestHeartbeat: the loop goes round now and then though nothing happens.
func TestHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.begin()
		for range 100 {
			time.Sleep(7 * time.Second)
			if age := time.Since(r.Heartbeat()); age > resyncInterval {
				t.Fatalf("the last round was %s ago", age)
			}
		}
	})
}
