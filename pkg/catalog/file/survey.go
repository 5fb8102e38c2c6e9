package file

import (
	"connectd/pkg/strictyaml"
)

// survey is what the globs expand to at one moment.
type survey struct {
	globs   []Glob
	matches [][]match // for each glob
	failed  []error   // for each glob: why it cannot be expanded, or nil
	depends dependencies
}

func (s *Source) survey() *survey {
	s.mu.Lock()
	v := &survey{globs: s.globs}
	s.mu.Unlock()
	w := newWalker()
	for _, g := range v.globs {
		matches, err := w.glob(s.dir, g.Pattern)
		v.matches = append(v.matches, matches)
		v.failed = append(v.failed, err)
	}
	v.depends = w.depends
	return v
}

// complete reports whether every glob could be expanded: only then is a file
// that is not there gone.
func (v *survey) complete() bool {
	for _, err := range v.failed {
		if err != nil {
			return false
		}
	}
	return true
}

// errors are the globs that could not be expanded and, if empty is an error,
// those that match nothing.
func (v *survey) errors(empty bool) strictyaml.Errors {
	var errs strictyaml.Errors
	for i, g := range v.globs {
		switch {
		case v.failed[i] != nil:
			errs = append(errs, g.Origin.Errorf("expand %q: %s", g.Pattern, v.failed[i]))
		case empty && len(v.matches[i]) == 0:
			errs = append(errs, g.Origin.Errorf("no file matches %q", g.Pattern))
		}
	}
	return errs
}
