package instance

import (
	"context"
	"time"
)

const (
	// Interval is how often notices are looked for: as often as AWS recommends
	// for Spot Instances.
	Interval = 5 * time.Second
	// maxPause is how rarely, where nobody has ever answered.
	maxPause = time.Minute
)

// Run looks for notices until ctx ends, and returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	pause, left := Interval, Interval // a look is due when none is left
	failing := false
	for {
		w.lookAtECS()
		if left -= Interval; left <= 0 {
			err := w.look(ctx)
			if ctx.Err() != nil {
				return nil
			}
			pause = w.note(err, failing, pause)
			left, failing = pause, err != nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// note books the outcome of a look, whether the one before failed, and returns
// the pause before the next, of which it was pause before.
func (w *Watcher) note(err error, failing bool, pause time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := !w.stats.LastSuccess.IsZero()
	if err == nil {
		if failing {
			w.p.Log.Info("instance metadata answers")
		}
		w.stats.LastSuccess = time.Now()
		return Interval
	}
	w.stats.Errors++
	switch {
	case known && failing:
		return Interval
	case known:
		w.p.Log.Warn("look for notices of the instance, keeping those known", "error", err)
		return Interval
	case !failing:
		w.p.Log.Info("no instance metadata: not on EC2, or out of reach from here", "error", err)
	}
	return min(2*pause, maxPause)
}

// look asks for all notices that the metadata service has. It gives up at the
// first error: the other questions would wait as long for nothing.
func (w *Watcher) look(ctx context.Context) error {
	for _, q := range questions {
		text, found, err := w.metadata.get(ctx, q.path)
		if err != nil {
			return err
		}
		now := notice{}
		if found {
			now = q.read(text)
		}
		w.put(q.notice, now)
	}
	return nil
}

func (w *Watcher) lookAtECS() {
	if w.p.Draining == nil {
		return
	}
	now := notice{}
	if w.p.Draining() {
		now = notice{stands: true, text: "container instance is DRAINING"}
	}
	w.put(noticeECS, now)
}

// put takes over what a notice says now.
func (w *Watcher) put(n int, now notice) {
	w.mu.Lock()
	before := w.notices[n]
	if before.final && !now.final {
		now = before
	}
	was, why := w.leaving()
	w.notices[n] = now
	is, reason := w.leaving()
	w.mu.Unlock()
	if now != before {
		w.p.Log.Info("notice of the instance", "notice", words[n], "stands", now.stands, "text", now.text)
	}
	if (was != is || why != reason) && w.p.Changed != nil {
		w.p.Changed()
	}
}

// leaving is Leaving. The caller holds mu.
func (w *Watcher) leaving() (bool, string) {
	for n, now := range w.notices {
		if now.stands && (n != noticeRebalance || w.p.Rebalance) {
			return true, words[n] + ": " + now.text
		}
	}
	return false, ""
}
