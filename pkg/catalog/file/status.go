package file

import (
	"slices"
	"time"

	"connectd/pkg/catalog"
)

// publish makes the outcome visible, logs what is newly wrong or right, and
// calls changed if the services or errors differ.
func (s *Source) publish(t *turn) {
	services := s.index.Services()
	var status []catalog.Status
	for i, err := range t.failed {
		pattern := t.globs[i].Pattern
		if err == nil {
			delete(s.unlisted, pattern)
			continue
		}
		if s.unlisted[pattern].IsZero() {
			s.unlisted[pattern] = t.now
			s.log.Warn("keep catalog files: the glob cannot be expanded", "glob", pattern, "error", err)
		}
		status = append(status, catalog.Status{Path: pattern, Err: err, Since: s.unlisted[pattern]})
	}
	for _, f := range s.sorted() {
		s.tell(f, t.now)
		st := catalog.Status{Path: f.path, Services: len(f.entries), Loaded: f.loaded}
		if errs := f.errs(); errs != nil {
			st.Err, st.Since = errs, f.since
		}
		status = append(status, st)
	}
	s.mu.Lock()
	same := slices.Equal(services, s.services) && slices.EqualFunc(status, s.status, sameStatus)
	s.services, s.status = services, status
	s.mu.Unlock()
	if !same {
		s.changed()
	}
}

// tell logs what is newly wrong with a file, or right again.
func (s *Source) tell(f *catalogFile, now time.Time) {
	errs := f.errs()
	text := errs.Error()
	if text == f.told {
		return
	}
	if f.told == "" {
		f.since = now
	}
	f.told = text
	if errs == nil {
		s.log.Info("catalog file is good again", "path", f.path)
		return
	}
	if s.watcher != nil { // Load returns it, and there is nothing to keep yet
		s.log.Warn("keep what the catalog file had", "path", f.path, "services", len(f.entries), "errors", len(errs), "error", errs[0])
	}
}

// sameStatus leaves the times out: a file that says the same again is no
// change.
func sameStatus(a, b catalog.Status) bool {
	return a.Path == b.Path && a.Services == b.Services && errorText(a.Err) == errorText(b.Err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
