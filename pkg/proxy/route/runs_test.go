package route

import (
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
)

func TestRuns(t *testing.T) {
	a, b := &Endpoint{ID: 1}, &Endpoint{ID: 2}
	at := time.Unix(1000, 0)
	strike := func(task int, e *Endpoint, count uint32) lb.Strike {
		return lb.Strike{Endpoint: e.ID, Task: lb.TaskID(task), Count: count, At: at, HTTP: true}
	}
	none := lb.Strike{}
	var r Runs
	for i, step := range []struct {
		task int
		e    *Endpoint
		ok   bool
		want lb.Strike
	}{
		{1, a, true, none},
		{1, a, false, strike(1, a, 1)},
		{1, a, false, strike(1, a, 2)},
		{2, a, false, strike(2, a, 1)}, // another task's view
		{1, b, false, strike(1, b, 1)}, // another endpoint
		{2, b, true, none},             // had no run, though its endpoint has one
		{1, a, false, strike(1, a, 3)},
		{1, a, true, strike(1, a, 0)}, // ended, and told
		{1, a, true, none},            // once
		{2, a, false, strike(2, a, 2)},
		{1, a, false, strike(1, a, 1)}, // from the start
		{2, a, true, strike(2, a, 0)},
		{1, a, true, strike(1, a, 0)},
		{1, b, true, strike(1, b, 0)},
	} {
		var got lb.Strike
		told := true
		if step.ok {
			got, told = r.Succeeded(lb.TaskID(step.task), step.e, at)
		} else {
			got = r.Failed(lb.TaskID(step.task), step.e, at)
		}
		if got != step.want || told != (step.want != none) {
			t.Errorf("step %d: %+v %v, want %+v", i, got, told, step.want)
		}
	}
	if len(r.open) != 0 || a.runs.Load() != 0 || b.runs.Load() != 0 {
		t.Errorf("left open: %v, by endpoint %d and %d", r.open, a.runs.Load(), b.runs.Load())
	}
}

// TestRunsAreBounded: tasks that end in the middle of a run are forgotten, and
// endpoints know of it.
func TestRunsAreBounded(t *testing.T) {
	var r Runs
	endpoints := make([]Endpoint, 7)
	at := time.Unix(1000, 0)
	for task := range lb.TaskID(3 * maxRuns) {
		if s := r.Failed(task, &endpoints[task%7], at); s.Count != 1 {
			t.Fatalf("task %d begins with a run of %d", task, s.Count)
		}
	}
	if len(r.open) != maxRuns {
		t.Errorf("%d runs, want %d", len(r.open), maxRuns)
	}
	sum := int32(0)
	for i := range endpoints {
		sum += endpoints[i].runs.Load()
	}
	if sum != maxRuns {
		t.Errorf("endpoints know of %d runs", sum)
	}
	// The latest is among them.
	last := lb.TaskID(3*maxRuns - 1)
	if s := r.Failed(last, &endpoints[last%7], at); s.Count != 2 {
		t.Errorf("the latest run goes on with %d", s.Count)
	}
}

// TestRunsConcurrent: no failure of a run is lost, and runs end.
func TestRunsConcurrent(t *testing.T) {
	var r Runs
	e := &Endpoint{ID: 1}
	var wg sync.WaitGroup
	const each = 500
	for task := range lb.TaskID(4) {
		for range 2 {
			wg.Go(func() {
				for range each {
					r.Failed(task, e, time.Time{})
					r.Succeeded(100, e, time.Time{}) // somebody without a run
				}
			})
		}
	}
	wg.Wait()
	for task := range lb.TaskID(4) {
		if n := r.open[run{task, e}]; n != 2*each {
			t.Errorf("task %d: %d failures, want %d", task, n, 2*each)
		}
		if _, ok := r.Succeeded(task, e, time.Time{}); !ok {
			t.Errorf("task %d: its run does not end", task)
		}
	}
	if e.runs.Load() != 0 {
		t.Errorf("%d runs left", e.runs.Load())
	}
}

func BenchmarkSucceeded(b *testing.B) {
	var r Runs
	e := &Endpoint{ID: 1}
	b.ReportAllocs()
	for b.Loop() {
		r.Succeeded(1, e, time.Time{})
	}
}
