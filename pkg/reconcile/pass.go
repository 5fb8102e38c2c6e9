package reconcile

import (
	"errors"
	"fmt"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// inputs are what came in since the last pass.
type inputs struct {
	verdicts []lb.VerdictChange
	strikes  []lb.Strike
	asks     []ask
	catalog  bool
	tasks    bool
}

func (l *Loop) take() inputs {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := inputs{l.verdicts, l.strikes, l.asks, l.catalog, l.tasks}
	l.verdicts, l.strikes, l.asks, l.catalog, l.tasks = nil, nil, nil, false, false
	if l.taken.IsZero() {
		l.taken = l.since
	}
	l.since = time.Time{}
	return in
}

// pass plans once and writes what differs. It returns when the next pass is
// due though nothing happens.
func (l *Loop) pass(now time.Time) (wake time.Time, err error) {
	in := l.take()
	p := l.Planner
	if in.catalog {
		p.SetCatalog(l.Catalog())
	}
	if in.tasks {
		p.SetTasks(l.Tasks())
	}
	p.Observe(in.verdicts, in.strikes, l.counts())
	answers := make([]error, len(in.asks))
	for i, a := range in.asks {
		answers[i] = a.fn(p)
	}
	next := p.Step(now)
	err = l.realize(next, now)
	for i, a := range in.asks {
		a.done <- errors.Join(answers[i], err)
	}
	if err == nil {
		err = l.tidy()
	}
	l.account(next, now, err)
	if err != nil {
		return now.Add(retryInterval), err
	}
	return l.due(next, now), nil
}

// counts reads the connection counts that the planner waits for.
func (l *Loop) counts() map[lb.EndpointID]uint32 {
	last := l.desired.Load()
	if last == nil || len(last.Watch) == 0 {
		return nil
	}
	active := make(map[lb.EndpointID]uint32, len(last.Watch))
	for _, id := range last.Watch {
		active[id] = l.Kernel.Active(id)
	}
	return active
}

// realize brings a plan into force: journal, kernel, everybody else, in this
// order, so that after a crash nothing is in the kernel that is not known, and
// a name is usable as soon as it resolves.
func (l *Loop) realize(next *plan.Desired, now time.Time) error {
	if next == l.desired.Load() {
		return nil
	}
	if next != l.planned.Load() {
		// Nobody else has seen next yet, and nobody else wants its journal:
		// that of 100,000 endpoints is 10 MB.
		l.unwritten, next.Journal = append(l.unwritten, next.Journal...), nil
		l.planned.Store(next)
	}
	if len(l.unwritten) > 0 {
		if err := l.Journal.Append(l.unwritten); err != nil {
			return fmt.Errorf("write plan journal: %w", err)
		}
		l.unwritten = nil
	}
	if change := l.change(next); !change.Empty() {
		if err := l.Kernel.Apply(change, now); err != nil {
			l.torn = true
			return err
		}
	}
	if l.written == nil {
		if err := l.Kernel.Publish(); err != nil {
			return err
		}
	}
	if l.written == nil || l.torn {
		// Delete what an earlier daemon or a plan that was never whole left,
		// and this plan does not name.
		if _, err := l.Kernel.Resync(next); err != nil {
			return err
		}
	}
	l.torn = false
	l.written = next
	l.desired.Store(next)
	l.Publish(next)
	l.once.Do(func() { close(l.first) })
	return nil
}

// tidy does what can wait until a plan is in force.
func (l *Loop) tidy() error {
	if err := l.Journal.Compact(l.Planner.Snapshot); err != nil {
		return fmt.Errorf("compact plan journal: %w", err)
	}
	if l.stale {
		return l.resync()
	}
	return nil
}

// change returns what to write. After an Apply that failed the maps may hold
// any part of the plan it was for, which the difference to an older plan says
// nothing of: then everything is written.
func (l *Loop) change(next *plan.Desired) *plan.Change {
	c := plan.Diff(l.written, next)
	if l.torn {
		whole := plan.Diff(nil, next)
		whole.DropFrontends, whole.DropServices, whole.DropTasks = c.DropFrontends, c.DropServices, c.DropTasks
		return whole
	}
	return c
}

// due returns when the planner must run again on its own account.
func (l *Loop) due(d *plan.Desired, now time.Time) time.Time {
	next := now.Add(resyncInterval)
	if !d.Wake.IsZero() && d.Wake.Before(next) {
		next = d.Wake
	}
	if len(d.Watch) > 0 && next.After(now.Add(watchInterval)) {
		next = now.Add(watchInterval)
	}
	return next
}

// resync reads the kernel back and repairs it. What it repairs was changed by
// somebody else, or is a defect of ours: both are worth a line.
func (l *Loop) resync() error {
	repaired, err := l.Kernel.Resync(l.written)
	if repaired > 0 {
		l.Log.Warn("kernel did not hold what was written: repaired", "entries", repaired)
		l.mu.Lock()
		l.status.Repaired += uint64(repaired)
		l.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("resync with kernel: %w", err)
	}
	l.stale = false
	return nil
}
