package plan

import (
	"testing"
	"time"

	"connectd/pkg/lb"
)

// TestHalfRule is the decision table of who is ejected for whom, for an
// endpoint of a service of four (at most half may go). It is one whether
// connects or requests fail.
func TestHalfRule(t *testing.T) {
	t.Run("connects", func(t *testing.T) { testHalfRule(t, false) })
	t.Run("requests", func(t *testing.T) { testHalfRule(t, true) })
}

func testHalfRule(t *testing.T, http bool) {
	for _, c := range []struct {
		name      string
		strikes   map[string]uint32 // task to failures in a row, at the endpoint under test
		unhealthy bool              // the probe says so
		ejected   int               // others already ejected for all
		want      lb.State
		avoid     []string // tasks that avoid it
	}{
		{name: "nothing", want: lb.StateActive},
		{name: "four failures", strikes: map[string]uint32{"a": 4}, want: lb.StateActive},
		{name: "four failures each of two", strikes: map[string]uint32{"a": 4, "b": 4}, want: lb.StateActive},
		{name: "one task", strikes: map[string]uint32{"a": 5}, want: lb.StateActive, avoid: []string{"a"}},
		{name: "one task, many failures", strikes: map[string]uint32{"a": 500}, want: lb.StateActive, avoid: []string{"a"}},
		{name: "one task and half of another", strikes: map[string]uint32{"a": 5, "b": 4}, want: lb.StateActive, avoid: []string{"a"}},
		{name: "two tasks", strikes: map[string]uint32{"a": 5, "b": 5}, want: lb.StateEjected},
		{name: "three tasks", strikes: map[string]uint32{"a": 5, "b": 5, "c": 9}, want: lb.StateEjected},
		{name: "a probe alone", unhealthy: true, want: lb.StateUnhealthy},
		{name: "a probe and four failures", strikes: map[string]uint32{"a": 4}, unhealthy: true, want: lb.StateUnhealthy},
		{name: "a probe and one task", strikes: map[string]uint32{"a": 5}, unhealthy: true, want: lb.StateUnhealthy},
		{name: "one task, one other ejected", strikes: map[string]uint32{"a": 5}, ejected: 1, want: lb.StateActive, avoid: []string{"a"}},
		{name: "two tasks, one other ejected", strikes: map[string]uint32{"a": 5, "b": 5}, ejected: 1, want: lb.StateEjected},
		{name: "one task, half is ejected", strikes: map[string]uint32{"a": 5}, ejected: 2, want: lb.StateActive},
		{name: "two tasks, half is ejected", strikes: map[string]uint32{"a": 5, "b": 5}, ejected: 2, want: lb.StateActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEjectHarness(t)
			h.http = http
			for i := range c.ejected {
				h.strike(2+i, "a", 5)
				h.strike(2+i, "b", 5)
			}
			h.step(0)
			for _, task := range []string{"a", "b", "c"} {
				h.strike(1, task, c.strikes[task])
			}
			h.step(0)
			if c.unhealthy {
				h.p.Observe([]lb.VerdictChange{{Endpoint: 1, Verdict: lb.VerdictUnhealthy}}, nil, nil)
				h.step(0)
			}
			e := h.d.Services[0].Endpoints[0]
			if e.State != c.want {
				t.Errorf("state %s, want %s", e.State, c.want)
			}
			if want := choose(http, "callers get errors", "callers fail to connect"); e.State == lb.StateEjected && e.Reason != want {
				t.Errorf("reason %q, want %q", e.Reason, want)
			}
			if forEverybody := c.unhealthy && c.strikes["a"] >= 5; forEverybody && e.EjectUntil.IsZero() {
				t.Error("not ejected for all")
			}
			for _, task := range h.d.Tasks {
				want := false
				for _, name := range c.avoid {
					want = want || name == task.Name
				}
				if got := len(task.Avoid) == 1 && task.Avoid[0] == 1; got != want || !want && len(task.Avoid) > 0 {
					t.Errorf("task %s avoids %d", task.Name, task.Avoid)
				}
			}
		})
	}
}

type ejectHarness struct {
	*testing.T
	p    *Planner
	d    *Desired
	now  time.Time
	http bool // strikes are of requests
}

func newEjectHarness(t *testing.T) *ejectHarness {
	h := &ejectHarness{T: t, p: mustNew(t, Config{}, nil), now: epoch}
	h.p.SetCatalog(parseCatalog(t, "prod/x alias=x:80 check panic=1\n 10.0.0.1:80\n 10.0.0.2:80\n 10.0.0.3:80\n 10.0.0.4:80\n"))
	h.p.SetTasks([]lb.Task{{Name: "a"}, {Name: "b"}, {Name: "c"}})
	h.step(0)
	h.p.Observe(healthy(h.d), nil, nil)
	h.step(0)
	return h
}

func (h *ejectHarness) step(after time.Duration) {
	h.now = h.now.Add(after)
	h.d = h.p.Step(h.now)
}

func (h *ejectHarness) strike(endpoint int, name string, count uint32) {
	for _, task := range h.d.Tasks {
		if task.Name == name {
			h.p.Observe(nil, []lb.Strike{{Endpoint: lb.EndpointID(endpoint), Task: task.ID, Count: count, At: h.now, HTTP: h.http}}, nil)
		}
	}
}

// TestEjectionGrowsAndDecays follows the length of one task's ejections.
func TestEjectionGrowsAndDecays(t *testing.T) {
	h := newEjectHarness(t)
	for i, c := range []struct {
		quiet time.Duration // since the ejection before ended
		want  time.Duration
	}{
		{0, 30 * time.Second},
		{0, 60 * time.Second},
		{29 * time.Second, 90 * time.Second},
		{30 * time.Second, 90 * time.Second},
		{65 * time.Second, 60 * time.Second},
		{time.Hour, 30 * time.Second},
		{0, 60 * time.Second}, {0, 90 * time.Second}, {0, 120 * time.Second}, {0, 150 * time.Second}, {0, 180 * time.Second},
		{0, 210 * time.Second}, {0, 240 * time.Second}, {0, 270 * time.Second}, {0, 300 * time.Second}, {0, 300 * time.Second},
	} {
		h.step(c.quiet)
		h.strike(1, "a", 5)
		h.step(0)
		if got := h.d.Wake.Sub(h.now); got != c.want {
			t.Fatalf("ejection %d lasts %s, want %s", i, got, c.want)
		}
		h.step(c.want - 1)
		if len(h.d.Tasks[0].Avoid) != 1 {
			t.Fatalf("ejection %d ended early", i)
		}
		h.step(1)
		if len(h.d.Tasks[0].Avoid) != 0 {
			t.Fatalf("ejection %d goes on", i)
		}
	}
}

// TestAvoidNeverAll: however many may be ejected, a task is left something.
func TestAvoidNeverAll(t *testing.T) {
	h := &ejectHarness{T: t, p: mustNew(t, Config{}, nil), now: epoch}
	h.p.SetCatalog(parseCatalog(t, "prod/x alias=x:80 max=100\n 10.0.0.1:80\n 10.0.0.2:80\n"))
	h.p.SetTasks([]lb.Task{{Name: "a"}})
	h.step(0)
	h.strike(1, "a", 5)
	h.step(0)
	if got := h.d.Tasks[0].Avoid; len(got) != 1 {
		t.Fatalf("avoids %d, want one", got)
	}
	h.strike(2, "a", 5)
	h.step(0)
	if got := h.d.Tasks[0].Avoid; len(got) != 0 {
		t.Errorf("avoids all of a service: %d", got)
	}
}

// TestRunAfterEjection: how many failures it takes to be ejected again. The
// kernel's run of connects goes on, that of requests begins anew.
func TestRunAfterEjection(t *testing.T) {
	for _, c := range []struct {
		name   string
		http   bool
		during []uint32 // counts reported while ejected
		after  []uint32 // and after that
		again  int      // which of these ejects; -1 is none
	}{
		{name: "connects: the next", after: []uint32{6}, again: 0},
		{name: "connects: after a success five", after: []uint32{0, 1, 4, 5}, again: 3},
		{name: "requests: five more", http: true, after: []uint32{6, 9, 10}, again: 2},
		{name: "requests: those during it do not count", http: true, during: []uint32{6, 7, 11}, after: []uint32{12, 15, 16}, again: 2},
		{name: "requests: nor a run that began during it", http: true, during: []uint32{0, 1, 2}, after: []uint32{3, 6, 7}, again: 2},
		{name: "requests: a success during it", http: true, during: []uint32{9, 0}, after: []uint32{4, 5}, again: 1},
		{name: "requests: a success after it", http: true, after: []uint32{9, 0, 4, 5}, again: 3},
		{name: "requests: a success that nobody reported", http: true, during: []uint32{9}, after: []uint32{1, 4, 5}, again: 2},
		{name: "requests: never", http: true, after: []uint32{6, 7, 8, 9}, again: -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newEjectHarness(t)
			h.http = c.http
			h.strike(1, "a", 5)
			h.step(0)
			for _, count := range c.during {
				h.strike(1, "a", count)
				h.step(0)
			}
			h.step(30 * time.Second)
			if h.avoids() {
				t.Fatal("does not end")
			}
			got := -1
			for i, count := range c.after {
				h.strike(1, "a", count)
				if h.step(0); h.avoids() && got < 0 {
					got = i
				}
			}
			if got != c.again {
				t.Errorf("ejected again by report %d, want %d", got, c.again)
			}
		})
	}
}

func (h *ejectHarness) avoids() bool { return len(h.d.Tasks[0].Avoid) > 0 }

// TestSpentFailuresAreForgotten with the task or the endpoint that they are of:
// ids are used again.
func TestSpentFailuresAreForgotten(t *testing.T) {
	for what, forget := range map[string]func(h *ejectHarness){
		"task": func(h *ejectHarness) { h.p.SetTasks([]lb.Task{{Name: "b"}}) },
		"service": func(h *ejectHarness) {
			h.p.SetCatalog(nil)
			h.step(0)
			h.p.Observe(nil, nil, map[lb.EndpointID]uint32{1: 0})
		},
	} {
		h := newEjectHarness(t)
		h.http = true
		h.strike(1, "a", 5)
		h.step(0)
		if len(h.p.spent) != 1 {
			t.Fatalf("%s: spent %v", what, h.p.spent)
		}
		forget(h)
		h.step(0)
		if len(h.p.spent) != 0 {
			t.Errorf("%s is gone, spent %v stays", what, h.p.spent)
		}
	}
}
