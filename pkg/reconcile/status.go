package reconcile

import (
	"time"

	"connectd/pkg/plan"
)

// Status is the state of the loop.
type Status struct {
	Planned     uint64        // revision of the newest plan
	Revision    uint64        // of the plan in force
	Lag         time.Duration // age of the oldest input that is not in force; 0 is none
	Passes      uint64
	Errors      uint64
	Repaired    uint64 // map entries that a resync had to put right
	LastSuccess time.Time
	Error       string // of the last pass; "" when it succeeded
	ErrorAt     time.Time
}

// Status returns the state of the loop now.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	oldest := l.taken
	if oldest.IsZero() {
		oldest = l.since
	}
	if !oldest.IsZero() {
		s.Lag = time.Since(oldest)
	}
	return s
}

// account notes how a pass went.
func (l *Loop) account(next *plan.Desired, begun time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.status
	s.Passes++
	s.Planned = next.Revision
	if l.desired.Load() == next {
		if s.Revision != next.Revision && l.Passed != nil {
			l.Passed(time.Since(begun))
		}
		s.Revision = next.Revision
		l.taken = time.Time{}
	} else if l.taken.IsZero() {
		l.taken = begun // a plan that time alone changed
	}
	if err != nil {
		if s.Error != err.Error() {
			l.Log.Error("reconcile, will try again", "error", err)
		}
		if l.failing.IsZero() {
			l.failing = begun
		}
		s.Errors++
		s.Error, s.ErrorAt = err.Error(), begun
		return
	}
	if !l.failing.IsZero() {
		l.Log.Info("reconcile succeeds again", "after", time.Since(l.failing).Round(time.Millisecond))
	}
	l.failing, s.Error = time.Time{}, ""
	s.LastSuccess = time.Now()
}
