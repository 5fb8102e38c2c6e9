package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// walker expands globs and notes on the way which names in which directories
// the result depends on, symbolic links included, so that each of them can be
// watched. Unlike filepath.Glob it tells an unreadable directory from an
// empty one.
type walker struct {
	depends  dependencies
	resolved map[string]resolution
}

// dependencies are the names looked up in each directory. The directories'
// paths are absolute and free of symbolic links.
type dependencies map[string]*lookups

type lookups struct {
	names    map[string]bool
	patterns []string
}

// covers reports whether a change of name in dir can change the result.
func (d dependencies) covers(dir, name string) bool {
	l := d[dir]
	if l == nil {
		return false
	}
	if l.names[name] {
		return true
	}
	for _, p := range l.patterns {
		if matches(p, name) {
			return true
		}
	}
	return false
}

func (d dependencies) in(dir string) *lookups {
	if d[dir] == nil {
		d[dir] = &lookups{names: map[string]bool{}}
	}
	return d[dir]
}

// resolution is what a name leads to; info is of the real path.
type resolution struct {
	real string
	info fs.FileInfo
	err  error
}

// match is a file a glob expands to.
type match struct {
	path string // as configured, for people
	resolution
}

func newWalker() *walker {
	return &walker{depends: dependencies{}, resolved: map[string]resolution{}}
}

// maxLinks bounds the symbolic links followed for one name, as the kernel does.
const maxLinks = 40

// glob expands a pattern relative to base. Nothing there is no error.
func (w *walker) glob(base, pattern string) ([]match, error) {
	pattern = filepath.Clean(pattern)
	root, err := filepath.Abs(base)
	if err != nil {
		return nil, err
	}
	if filepath.IsAbs(pattern) {
		base, root = "/", "/"
	}
	at := w.walk("/", root, maxLinks)
	if at.err != nil {
		return nil, unlessAbsent(at.err)
	}
	return w.expand(at.real, base, strings.Split(strings.TrimPrefix(pattern, "/"), "/"))
}

func (w *walker) expand(dir, shown string, elements []string) ([]match, error) {
	element, rest := elements[0], elements[1:]
	names, wild := []string{element}, strings.ContainsAny(element, `*?[\`)
	if wild {
		var err error
		if names, err = w.list(dir, element); err != nil {
			return nil, unlessAbsent(err)
		}
	}
	var found []match
	for _, name := range names {
		r := w.lookup(dir, name, maxLinks)
		if r.err != nil {
			if err := unlessAbsent(r.err); err != nil {
				return nil, err
			}
			continue
		}
		path := filepath.Join(shown, name)
		if len(rest) > 0 {
			if !r.info.IsDir() {
				continue
			}
			deeper, err := w.expand(r.real, path, rest)
			if err != nil {
				return nil, err
			}
			found = append(found, deeper...)
		} else if !wild || r.info.Mode().IsRegular() {
			found = append(found, match{path, r})
		}
	}
	return found, nil
}

// list returns the names in dir that match a pattern, sorted.
func (w *walker) list(dir, pattern string) ([]string, error) {
	l := w.depends.in(dir)
	l.patterns = append(l.patterns, pattern)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if matches(pattern, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// matches is the shell's rule: hidden files only by a pattern that begins
// with a dot. Editors and configuration volumes keep their own files so.
func matches(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") {
		return false
	}
	ok, _ := filepath.Match(pattern, name)
	return ok
}

// lookup resolves one name in a directory whose path is real.
func (w *walker) lookup(dir, name string, links int) resolution {
	if name == ".." {
		return w.walk("/", filepath.Dir(dir), links)
	}
	w.depends.in(dir).names[name] = true
	path := filepath.Join(dir, name)
	if r, ok := w.resolved[path]; ok {
		return r
	}
	r := resolution{real: path}
	if r.info, r.err = os.Lstat(path); r.err == nil && r.info.Mode()&fs.ModeSymlink != 0 {
		r = w.follow(dir, path, links)
	}
	w.resolved[path] = r
	return r
}

func (w *walker) follow(dir, link string, links int) resolution {
	if links == 0 {
		return resolution{err: &fs.PathError{Op: "follow", Path: link, Err: syscall.ELOOP}}
	}
	target, err := os.Readlink(link)
	if err != nil {
		return resolution{err: err}
	}
	return w.walk(dir, target, links-1)
}

// walk resolves a path, element by element, from a directory whose path is
// real, or from the root if it is absolute.
func (w *walker) walk(dir, path string, links int) resolution {
	if filepath.IsAbs(path) {
		dir = "/"
	}
	at := resolution{real: dir}
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." {
			continue
		}
		if at = w.lookup(at.real, element, links); at.err != nil {
			return at
		}
	}
	if at.info == nil {
		at.info, at.err = os.Lstat(at.real)
	}
	return at
}

// unlessAbsent turns absence into no error: that nothing is there is data.
func unlessAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
