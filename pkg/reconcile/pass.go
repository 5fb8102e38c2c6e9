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
	since    time.Time
}

func (l *Loop) take() inputs {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := inputs{l.verdicts, l.strikes, l.asks, l.catalog, l.tasks, l.since}
	l.verdicts, l.strikes, l.asks, l.catalog, l.tasks = nil, nil, nil, false, false
	return in
}

// pass plans once and writes what differs. It returns when the next pass is
// due though nothing happens.
func (l *Loop) pass(now time.Time) time.Time {
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
	err := l.realize(next, now)
	for i, a := range in.asks {
		a.done <- errors.Join(answers[i], err)
	}
	l.account(next, in.since, now, err)
	if err != nil {
		return now.Add(retryInterval)
	}
	return l.due(next, now)
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
	if next != l.planned {
		l.planned = next
		l.unwritten = append(l.unwritten, next.Journal...)
	}
	if len(l.unwritten) > 0 {
		if err := l.Journal.Append(l.unwritten); err != nil {
			return fmt.Errorf("write plan journal: %w", err)
		}
		l.unwritten = nil
	}
	change := plan.Diff(l.written, next)
	if !change.Empty() {
		if err := l.Kernel.Apply(change, now); err != nil {
			return err
		}
	}
	if l.written == nil {
		// The first plan: put the programs over it, then delete what an
		// earlier daemon left and this plan does not name.
		if err := l.Kernel.Publish(); err != nil {
			return err
		}
		if _, err := l.Kernel.Resync(next); err != nil {
			return err
		}
	}
	l.written = next
	l.desired.Store(next)
	l.Publish(next)
	l.once.Do(func() { close(l.first) })
	if err := l.Journal.Compact(l.Planner.Snapshot); err != nil {
		return fmt.Errorf("compact plan journal: %w", err)
	}
	return nil
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
func (l *Loop) resync() {
	if l.written == nil {
		return
	}
	repaired, err := l.Kernel.Resync(l.written)
	l.mu.Lock()
	l.status.Repaired += uint64(repaired)
	if err != nil {
		l.status.Errors++
		l.status.Error, l.status.ErrorAt = err.Error(), time.Now()
	}
	l.mu.Unlock()
	if err != nil {
		l.Log.Error("resync with kernel", "error", err)
	}
	if repaired > 0 {
		l.Log.Warn("kernel did not hold what was written: repaired", "entries", repaired)
	}
}
