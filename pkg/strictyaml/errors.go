package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Origin is a place in a file.
type Origin struct {
	File  string
	Line  int    // from 1; 0 is the whole file
	Field string // "services[1].clientAliases[0].port"; "" is the whole document
}

func (o Origin) String() string {
	var b strings.Builder
	b.WriteString(o.File)
	if o.Line > 0 {
		fmt.Fprintf(&b, ":%d", o.Line)
	}
	if o.Field != "" {
		b.WriteString(": ")
		b.WriteString(o.Field)
	}
	return b.String()
}

// Errorf makes an error at this place.
func (o Origin) Errorf(format string, args ...any) *Error {
	return &Error{Origin: o, Detail: fmt.Sprintf(format, args...)}
}

// Error is one thing wrong in a file.
type Error struct {
	Origin
	Detail string
	cause  error
}

// Unwrap returns the operating system's error, if there is one.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string { return e.Origin.String() + ": " + e.Detail }

// Errors is everything wrong in one or more files, a line for each. Within a
// file they stand in the order of lines.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Sort puts the errors of one file in the order of lines.
func (e Errors) Sort() {
	slices.SortStableFunc(e, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
}

// Unwrap makes each error visible to errors.Is and errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}
