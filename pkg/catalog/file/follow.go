package file

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// Follow calls changed after each change of the file at path, symbolic links
// on the way included, until ctx ends; it returns nil then. It keeps quiet
// while the file is being written or is not there. It serves the config file,
// which is no catalog but changes in the same ways.
func Follow(ctx context.Context, path string, changed func()) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := newWatcher(ctx)
	if err != nil {
		cancel()
		return err
	}
	defer w.close()
	defer cancel()
	last, _, err := w.identifyPath(abs)
	if err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.ready:
			if !ok && ctx.Err() == nil {
				return errors.New("watch config file: inotify ended")
			}
		case <-timer.C:
			w.dirty = true
		}
		now := time.Now()
		if err := w.drain(now); err != nil {
			return err
		}
		if !w.dirty {
			continue
		}
		w.dirty = false
		id, real, err := w.identifyPath(abs)
		if err != nil {
			return err
		}
		if until, busy := w.busy(real, now); busy {
			timer.Reset(time.Until(until))
		} else if id != (identity{}) && (id != last || !id.settled(now)) {
			last = id
			changed()
		}
	}
}

// identifyPath watches what path depends on and returns the identity of what
// is there now, zero if nothing can be seen there.
func (w *watcher) identifyPath(path string) (id identity, real string, err error) {
	for {
		walk := newWalker()
		r := walk.walk("/", path, maxLinks)
		added, err := w.sync(walk.depends)
		if err != nil {
			return identity{}, "", err
		}
		if added {
			continue
		}
		if r.err != nil {
			return identity{}, "", nil
		}
		return identify(r.info), r.real, nil
	}
}
