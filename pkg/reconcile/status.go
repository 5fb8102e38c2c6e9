package reconcile

import (
	"time"

	"connectd/pkg/plan"
)

// Status is the state of the loop.
type Status struct {
	Revision    uint64        // of the plan in force
	Lag         time.Duration // age of the oldest input that is not in force; 0 is none
	Passes      uint64
	Errors      uint64
	Repaired    uint64 // map entries that a resync had to put right
	LastSuccess time.Time
	LastPass    time.Duration // how long the last pass took that changed something
	Error       string        // of the last pass; "" when it succeeded
	ErrorAt     time.Time
	Problems    []string // what the plan had to leave out
}

// Status returns the state of the loop now.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	if !l.since.IsZero() {
		s.Lag = time.Since(l.since)
	}
	return s
}

// account notes how a pass over inputs that came in at since went.
func (l *Loop) account(next *plan.Desired, since, begun time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.status
	s.Passes++
	if err != nil {
		if s.Error != err.Error() {
			l.Log.Error("write plan to kernel, will try again", "error", err)
		}
		s.Errors++
		s.Error, s.ErrorAt = err.Error(), begun
		return
	}
	if s.Error != "" {
		l.Log.Info("plan is in the kernel again", "after", time.Since(s.ErrorAt).Round(time.Millisecond))
	}
	s.Error = ""
	s.LastSuccess = time.Now()
	if s.Revision != next.Revision {
		s.LastPass = time.Since(begun)
		if l.Passed != nil {
			l.Passed(s.LastPass)
		}
	}
	s.Revision = next.Revision
	s.Problems = next.Problems
	if l.since.Equal(since) {
		l.since = time.Time{} // nothing came in meanwhile
	} else {
		l.since = begun
	}
}
