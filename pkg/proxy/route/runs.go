package route

import (
	"sync"
	"time"

	"connectd/pkg/lb"
)

// Runs counts failures in a row, by task and endpoint. Package plan decides
// what a run means. While all is well a request costs one load.
type Runs struct {
	mu   sync.Mutex
	open map[run]uint32
}

type run struct {
	task     lb.TaskID
	endpoint *Endpoint
}

// maxRuns bounds the memory for runs that never end because their task did.
const maxRuns = 8192

// Failed counts a failure and returns the run it belongs to.
func (r *Runs) Failed(task lb.TaskID, e *Endpoint, now time.Time) lb.Strike {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := run{task, e}
	if r.open == nil {
		r.open = make(map[run]uint32)
	}
	n, ok := r.open[k]
	if !ok {
		if len(r.open) >= maxRuns {
			r.forgetOne()
		}
		e.runs.Add(1)
	}
	r.open[k] = n + 1
	return lb.Strike{Endpoint: e.ID, Task: task, Count: n + 1, At: now, HTTP: true}
}

// Succeeded ends a run. ok is false when there was none.
func (r *Runs) Succeeded(task lb.TaskID, e *Endpoint, now time.Time) (s lb.Strike, ok bool) {
	if e.runs.Load() == 0 {
		return s, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := run{task, e}
	if _, ok := r.open[k]; !ok {
		return s, false
	}
	delete(r.open, k)
	e.runs.Add(-1)
	return lb.Strike{Endpoint: e.ID, Task: task, At: now, HTTP: true}, true
}

func (r *Runs) forgetOne() {
	for k := range r.open {
		delete(r.open, k)
		k.endpoint.runs.Add(-1)
		return
	}
}
