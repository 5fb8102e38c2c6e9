// Package file is the catalog source that reads YAML files: globs, watched by
// inotify and read again when they change.
package file

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

// Glob is a pattern of catalog files: a path in which *, ? and [...] stand
// for parts of a name, as in filepath.Match. Hidden files need a pattern that
// begins with a dot.
type Glob struct {
	Pattern string
	Origin  strictyaml.Origin // where it was configured, for errors
}

// Params are what a Source is made of.
type Params struct {
	Dir       string         // what relative patterns are relative to; "" is the working directory
	Globs     []Glob         // which files
	Forbidden []netip.Prefix // prefixes no endpoint may be in: the VIP ranges
	Log       *slog.Logger
	// Changed, if set, is called after each change of what Snapshot returns,
	// by Load and by Run. It must not block.
	Changed func()
}

// Source lists the services of catalog files. An unchanged service is the same
// pointer in every Snapshot. A file that cannot be read, is invalid
// or conflicts with another keeps the services it had; a file that is gone
// loses them. Load comes first, then Run; the other methods may be called at
// any time.
type Source struct {
	dir     string
	decoder Decoder
	log     *slog.Logger
	changed func()
	reload  chan struct{}

	// Owned by Load, then by Run.
	files    map[string]*catalogFile // by path as configured
	unlisted map[string]time.Time    // globs that cannot be expanded, since when
	index    *catalog.Index
	watcher  *watcher // nil in Load

	mu       sync.Mutex // guards the following
	globs    []Glob
	services []*lb.Service
	status   []catalog.Status
	looked   chan struct{} // of a Reload that Run has not taken; nil: none
}

// New returns a Source that has read nothing yet.
func New(p Params) *Source {
	if p.Changed == nil {
		p.Changed = func() {}
	}
	return &Source{
		dir:      p.Dir,
		decoder:  Decoder{Forbidden: p.Forbidden, CheckCA: checkCA},
		log:      p.Log.With("component", "catalog"),
		changed:  p.Changed,
		reload:   make(chan struct{}, 1),
		files:    map[string]*catalogFile{},
		unlisted: map[string]time.Time{},
		index:    catalog.NewIndex(),
		globs:    p.Globs,
	}
}

// Load reads every file for the first time. Its error is strictyaml.Errors:
// everything that is wrong in all files, and each glob that matches none.
// What is right is in Snapshot all the same.
func (s *Source) Load(ctx context.Context) error {
	v := s.survey()
	errs := v.errors(true)
	s.update(&turn{survey: v, now: time.Now()})
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, f := range s.sorted() {
		errs = append(errs, f.errs()...)
	}
	if errs != nil {
		return errs
	}
	return nil
}

// Run watches the files until ctx ends, and returns nil then. An error says
// that they cannot be watched.
func (s *Source) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	w, err := newWatcher(ctx)
	if err != nil {
		cancel()
		return err
	}
	defer w.close()
	defer cancel()
	s.watcher = w
	timer := time.NewTimer(0) // look at once: there may be changes since Load
	defer timer.Stop()
	for {
		var looked chan struct{}
		select {
		case <-ctx.Done():
			return nil
		case <-s.reload:
			s.mu.Lock()
			looked, s.looked = s.looked, nil
			s.mu.Unlock()
		case _, ok := <-w.ready:
			if !ok && ctx.Err() == nil {
				return errors.New("watch catalog files: inotify ended")
			}
		case <-timer.C:
			w.dirty = true
		}
		wake, err := s.look(looked != nil)
		if err != nil {
			return err
		}
		if looked != nil {
			close(looked)
		}
		if !wake.IsZero() {
			timer.Reset(max(time.Until(wake), time.Millisecond))
		}
	}
}

// look reads what has changed as long as something does, and returns when to
// look again without an event.
func (s *Source) look(force bool) (wake time.Time, err error) {
	w := s.watcher
	for {
		if err := w.drain(time.Now()); err != nil {
			return time.Time{}, err
		}
		if force {
			clear(w.writing)
			w.dirty = true
		}
		if !w.dirty {
			return wake, nil
		}
		w.dirty = false
		v := s.survey()
		// What changed in a directory before it was watched, made no event.
		for added := true; added; {
			if added, err = w.sync(v.depends); err != nil {
				return time.Time{}, err
			}
			if added {
				v = s.survey()
			}
		}
		t := &turn{survey: v, now: time.Now(), force: force}
		s.update(t)
		wake, force = t.wake, false
	}
}

// Reload makes Run look at every file of globs at once, as a change does, and
// read invalid files again though they have not changed. The channel is closed
// when that is in Snapshot; never, if Run has ended.
func (s *Source) Reload(globs []Glob) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.globs = globs
	if s.looked == nil { // else Run has not taken the one before yet
		s.looked = make(chan struct{})
		s.reload <- struct{}{} // has room: Run empties it before it takes looked
	}
	return s.looked
}

// Snapshot returns the services in force, sorted by name, and the state of
// each file, sorted by path, and of each glob that cannot be expanded.
func (s *Source) Snapshot() ([]*lb.Service, []catalog.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services, s.status
}
