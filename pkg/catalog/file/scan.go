package file

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"connectd/pkg/catalog"
	"connectd/pkg/strictyaml"
)

// goneAfter is how long a file must be missing before its services go:
// editors and version control replace a file by removing it and making it
// again.
const goneAfter = 100 * time.Millisecond

// catalogFile is what is known of one file.
type catalogFile struct {
	path    string
	id      identity // of what was read last; zero means read it again
	missing time.Time
	// entries are in force. Next are to replace them; they wait while they
	// conflict with another file's.
	entries, next []catalog.Entry
	pending, gone bool // next is to come into force; the file then goes
	invalid       strictyaml.Errors
	conflicts     strictyaml.Errors
	told          string    // the errors as logged last
	since         time.Time // since when there are errors
	loaded        time.Time // when entries came into force
}

// errs is why what the file says is not in force.
func (f *catalogFile) errs() strictyaml.Errors {
	if f.invalid != nil {
		return f.invalid
	}
	return f.conflicts
}

func (s *Source) sorted() []*catalogFile {
	return slices.SortedFunc(maps.Values(s.files), func(a, b *catalogFile) int { return strings.Compare(a.path, b.path) })
}

// turn is one look at the files.
type turn struct {
	*survey
	now   time.Time
	force bool      // read invalid files again though they have not changed
	wake  time.Time // when to look again without an event; zero is never
}

func (t *turn) soon(at time.Time) {
	if t.wake.IsZero() || at.Before(t.wake) {
		t.wake = at
	}
}

// update brings what the survey found into force.
func (s *Source) update(t *turn) {
	read := s.stale(t)
	s.readAll(read)
	// What was written before it was read has made its event by now. An error
	// meets the next look too.
	_ = s.watcher.drain(t.now)
	for _, r := range read {
		if until, busy := s.watcher.busy(r.match.real, t.now); busy {
			t.soon(until)
		} else if r.again {
			t.soon(t.now.Add(restless))
		} else {
			s.take(r)
		}
	}
	s.settle(t.now)
	s.publish(t)
}

// stale returns the files to read and marks those that are gone.
func (s *Source) stale(t *turn) (read []*reading) {
	present := map[string]bool{}
	for _, m := range slices.Concat(t.matches...) {
		if present[m.path] {
			continue
		}
		present[m.path] = true
		f := s.files[m.path]
		if f == nil {
			f = &catalogFile{path: m.path}
			s.files[m.path] = f
		}
		f.missing = time.Time{}
		if until, busy := s.watcher.busy(m.real, t.now); busy {
			t.soon(until)
		} else if f.id != identify(m.info) || t.force && f.invalid != nil {
			read = append(read, &reading{file: f, match: m})
		}
	}
	if !t.complete() {
		return read
	}
	for _, f := range s.files {
		if present[f.path] {
			continue
		}
		if f.missing.IsZero() {
			f.missing = t.now
		}
		if until := f.missing.Add(goneAfter); t.now.Before(until) {
			t.soon(until)
		} else {
			f.next, f.pending, f.gone, f.invalid = nil, true, true, nil
		}
	}
	return read
}

// readAll reads in parallel, a processor's worth of files at a time: a parsed
// file takes about 30 times its size while it is decoded.
func (s *Source) readAll(read []*reading) {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, r := range read {
		g.Go(func() error {
			r.run(s.decoder)
			return nil
		})
	}
	g.Wait()
}

// take notes what was read. Services that say what they said before keep
// their pointers.
func (s *Source) take(r *reading) {
	f := r.file
	f.id, f.invalid, f.pending, f.gone = r.id, r.errs, r.errs == nil, false
	if !f.pending {
		f.next, f.conflicts = nil, nil
		return
	}
	f.next = r.entries
	for i, e := range f.next {
		if old, ok := s.index.Lookup(e.Service.Name); ok && catalog.Equal(old.Service, e.Service) {
			f.next[i].Service = old.Service
		}
	}
}

// settle brings pending files into force: all at once, so that services can
// move between files, or if there is a conflict, each that has none.
func (s *Source) settle(now time.Time) {
	var pending []*catalogFile
	var out, in []catalog.Entry
	for _, f := range s.sorted() {
		if f.pending {
			pending = append(pending, f)
			out = append(out, f.entries...)
			in = append(in, f.next...)
		}
	}
	if len(pending) == 0 {
		return
	}
	if s.index.Replace(out, in) == nil {
		for _, f := range pending {
			s.adopt(f, now)
		}
		return
	}
	for progress := true; progress; {
		progress = false
		for _, f := range pending {
			if !f.pending {
				continue
			}
			conflicts := s.index.Replace(f.entries, f.next)
			f.conflicts = conflictErrors(conflicts)
			if conflicts == nil {
				s.adopt(f, now)
				progress = true
			}
		}
	}
}

func (s *Source) adopt(f *catalogFile, now time.Time) {
	f.entries, f.next, f.pending, f.conflicts, f.loaded = f.next, nil, false, nil, now
	if f.gone {
		delete(s.files, f.path)
		s.log.Info("catalog file is gone", "path", f.path)
	} else if s.watcher != nil {
		s.log.Info("catalog file loaded", "path", f.path, "services", len(f.entries))
	}
}

func conflictErrors(conflicts []*catalog.Conflict) strictyaml.Errors {
	var errs strictyaml.Errors
	for _, c := range conflicts {
		errs = append(errs, conflictError(c))
	}
	return errs
}
