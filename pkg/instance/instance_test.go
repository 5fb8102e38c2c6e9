package instance

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

// answers is a metadata service in memory.
type answers struct {
	mu    sync.Mutex
	texts map[string]string // by path
	err   error             // of every question
	asked []time.Time       // for the first path
}

func (a *answers) set(path, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.texts == nil {
		a.texts = make(map[string]string)
	}
	a.texts[path] = text
}

func (a *answers) unset(path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.texts, path)
}

func (a *answers) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// take returns when it was asked since the last time.
func (a *answers) take() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.asked
	a.asked = nil
	return out
}

func (a *answers) get(_ context.Context, path string) (string, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if path == questions[0].path {
		a.asked = append(a.asked, time.Now())
	}
	if a.err != nil {
		return "", false, a.err
	}
	text, ok := a.texts[path]
	return text, ok, nil
}

func (a *answers) identity(context.Context) (Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, time.Now())
	return Identity{InstanceID: "i-1"}, a.err
}

// start runs a Watcher under a fake clock.
func start(t *testing.T, a *answers, p Params) *Watcher {
	t.Helper()
	w := newWatcher(p, a)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %s", err)
		}
	})
	synctest.Wait()
	return w
}

func next() {
	time.Sleep(Interval)
	synctest.Wait()
}

const (
	spot        = "spot/instance-action"
	autoScaling = "autoscaling/target-lifecycle-state"
	rebalance   = "events/recommendations/rebalance"
)

// Which notices make an instance leave, and which of them are taken back when
// nothing is said of them any more.
func TestNotices(t *testing.T) {
	for _, test := range []struct {
		path, text string
		rebalance  bool
		reason     string // "": it stays
		after      bool   // it leaves still when the notice is gone
	}{
		{spot, `{"action": "terminate", "time": "2026-11-28T12:00:00Z"}`, false, "spot: interruption: terminate at 2026-11-28T12:00:00Z", true},
		{spot, `{"action": "stop", "time": "2026-11-28T12:00:00Z"}`, false, "spot: interruption: stop at 2026-11-28T12:00:00Z", false},
		{spot, `{"action": "hibernate"}`, false, "spot: interruption: hibernate", false},
		{spot, `{"act`, false, "spot: interruption, of a kind not understood", false},
		{spot, ``, false, "spot: interruption, of a kind not understood", false},
		{spot, `{"action": "a\nb"}`, false, "spot: interruption: a?b", false},
		{autoScaling, "Terminated", false, "autoscaling: target state is Terminated", true},
		{autoScaling, "Warmed:Terminated\n", false, "autoscaling: target state is Warmed:Terminated", true},
		{autoScaling, "Warmed:Stopped", false, "autoscaling: target state is Warmed:Stopped", false},
		{autoScaling, "Warmed:Hibernated", false, "autoscaling: target state is Warmed:Hibernated", false},
		{autoScaling, "Warmed:Running", false, "autoscaling: target state is Warmed:Running", false},
		{autoScaling, "InService", false, "", false},
		{autoScaling, "Standby", false, "", false},
		{autoScaling, "Detached", false, "", false},
		{autoScaling, "", false, "", false},
		{rebalance, `{"noticeTime": "2026-11-28T12:00:00Z"}`, false, "", false},
		{rebalance, `{"noticeTime": "2026-11-28T12:00:00Z"}`, true, "rebalance: recommendation of 2026-11-28T12:00:00Z", false},
		{rebalance, `?`, true, "rebalance: recommendation", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{}
			changes := make(chan struct{}, 10)
			w := start(t, a, Params{Rebalance: test.rebalance, Changed: func() { changes <- struct{}{} }})
			check := func(when, want string, wantChanges int) {
				t.Helper()
				leaving, reason := w.Leaving()
				if leaving != (want != "") || reason != want || len(changes) != wantChanges {
					t.Errorf("%s %q, %s: %v %q after %d changes, want %q after %d",
						test.path, test.text, when, leaving, reason, len(changes), want, wantChanges)
				}
			}
			check("before", "", 0)
			a.set(test.path, test.text)
			next()
			n := 1
			if test.reason == "" {
				n = 0
			}
			check("while it stands", test.reason, n)
			a.fail(errors.New("timeout"))
			next()
			next()
			check("while nothing answers", test.reason, n)
			a.fail(nil)
			a.unset(test.path)
			next()
			if test.after || n == 0 {
				check("when it is gone", test.reason, n)
			} else {
				check("when it is gone", "", 2)
			}
		})
	}
}

func TestECSDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		draining := false
		set := func(to bool) { mu.Lock(); defer mu.Unlock(); draining = to }
		a := &answers{}
		a.fail(errors.New("no route to host")) // ECS is asked all the same
		w := start(t, a, Params{Draining: func() bool { mu.Lock(); defer mu.Unlock(); return draining }})
		for _, want := range []bool{true, false, true} {
			set(want)
			next()
			if leaving, reason := w.Leaving(); leaving != want || want && reason != "ecs: container instance is DRAINING" {
				t.Errorf("draining %v: %v %q", want, leaving, reason)
			}
		}
		if got := w.Stats().Notices; !got["ecs"] || got["spot"] || len(got) != len(Reasons()) {
			t.Errorf("notices %v", got)
		}
	})
}

// The most urgent notice is the reason, and each new reason is told of.
func TestReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		a := &answers{}
		var w *Watcher
		ready := make(chan struct{})
		w = newWatcher(Params{Rebalance: true, Changed: func() {
			<-ready
			_, reason := w.Leaving()
			word, _, _ := strings.Cut(reason, ":")
			changes = append(changes, word)
		}}, a)
		close(ready)
		for _, step := range []struct{ path, text string }{
			{rebalance, "{}"}, {autoScaling, "Warmed:Stopped"}, {spot, `{"action": "stop"}`}, {autoScaling, "InService"}, {spot, ""},
		} {
			if a.set(step.path, step.text); step.text == "" {
				a.unset(step.path)
			}
			if err := w.look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"rebalance", "autoscaling", "spot", "rebalance"}; !slices.Equal(changes, want) {
			t.Errorf("reasons %v, want %v", changes, want)
		}
	})
}

// Where nobody answers looks get rare, and are said once; where somebody has,
// they go on.
func TestPauses(t *testing.T) {
	gaps := func(times []time.Time) (out []time.Duration) {
		for i := 1; i < len(times); i++ {
			out = append(out, times[i].Sub(times[i-1]))
		}
		return out
	}
	const s = time.Second
	synctest.Test(t, func(t *testing.T) {
		var log logged
		a := &answers{}
		a.fail(errors.New("no route to host"))
		w := start(t, a, Params{Log: log.logger()})
		time.Sleep(195 * s)
		synctest.Wait()
		if got := gaps(a.take()); !slices.Equal(got, []time.Duration{10 * s, 20 * s, 40 * s, 60 * s, 60 * s}) {
			t.Errorf("not on EC2: looked after %v", got)
		}
		log.expect(t, "no instance metadata: not on EC2, or out of reach from here")
		if st := w.Stats(); st.Errors != 6 || !st.LastSuccess.IsZero() {
			t.Errorf("%+v", st)
		}

		a.fail(nil)
		time.Sleep(60 * s)
		synctest.Wait()
		a.take()
		a.fail(errors.New("timeout"))
		time.Sleep(15 * s)
		synctest.Wait()
		if got := a.take(); len(got) != 3 {
			t.Errorf("on EC2: looked %d times in 15 s while nothing answered", len(got))
		}
		a.fail(nil)
		next()
		log.expect(t, "instance metadata answers", "look for notices of the instance, keeping those known", "instance metadata answers")
		if st := w.Stats(); st.Errors != 9 || time.Since(st.LastSuccess) > Interval {
			t.Errorf("%+v", st)
		}
	})
}

// Identity is asked until it was answered, and not after that.
func TestIdentityIsKept(t *testing.T) {
	a := &answers{}
	w := newWatcher(Params{}, a)
	a.fail(errors.New("timeout"))
	if _, err := w.Identity(t.Context()); err == nil {
		t.Error("an identity out of nothing")
	}
	a.fail(nil)
	for range 3 {
		if id, err := w.Identity(t.Context()); err != nil || id.InstanceID != "i-1" {
			t.Errorf("%+v, %v", id, err)
		}
	}
	if n := len(a.take()); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}
