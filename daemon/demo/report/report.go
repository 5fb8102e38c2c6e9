// Package report runs a demonstration step by step and says what came of each.
package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Report writes progress; the daemon's log may be mixed in.
type Report struct {
	mu    sync.Mutex
	out   io.Writer
	total int // steps
}

// Step is one thing shown of a T. It says what came of it, and returns an error
// unless it held.
type Step[T any] struct {
	Title string
	Run   func(T, context.Context) error
}

// Demo is what a demonstration consists of besides its steps.
type Demo struct {
	Sweep     func() ([]string, error) // removes what a killed one left, and names it
	Logs      func()                   // shows logs after a failure
	CleanUp   func(context.Context) error
	CleanTime time.Duration // what CleanUp may take; it goes on after Ctrl-C
	Linger    func()        // nil, or what comes between the last step and CleanUp
}

// New returns a report for a demonstration of so many steps, CleanUp not among them.
func New(out io.Writer, steps int) *Report { return &Report{out: out, total: steps + 1} }

// Run shows the steps of d from the sweep to the verdict. The error is nil only
// if all of them held and nothing was left behind. When ctx ends it stops where
// it is and cleans up.
func Run[T any](ctx context.Context, r *Report, d T, steps []Step[T], s Demo) error {
	swept, err := s.Sweep()
	if err != nil {
		return fmt.Errorf("sweep what a killed demo left: %w", err)
	}
	for _, name := range swept {
		r.Say("swept what a killed demo left: %s", name)
	}
	started := time.Now()
	err = perform(ctx, r, d, steps)
	if err == nil && s.Linger != nil {
		s.Linger()
	}
	if err != nil && ctx.Err() == nil {
		s.Logs()
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.CleanTime)
	defer cancel()
	err = errors.Join(err, r.step(r.total, "clean up", func() error { return s.CleanUp(clean) }))
	if err != nil {
		how := "failed"
		if ctx.Err() != nil {
			how = "was stopped"
		}
		r.Line("\nThe demo %s after %.1f s.", how, time.Since(started).Seconds())
		return err
	}
	r.Line("\nAll of it held, in %.1f s, and nothing is left behind.", time.Since(started).Seconds())
	return nil
}

func perform[T any](ctx context.Context, r *Report, d T, steps []Step[T]) error {
	for i, s := range steps {
		err := r.step(i+1, s.Title, func() error {
			err := s.Run(d, ctx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.Title, err)
		}
	}
	return nil
}

// Write writes whole lines of a program's output.
func (r *Report) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

// Line writes one.
func (r *Report) Line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

// Say writes one line of what came of a step.
func (r *Report) Say(format string, args ...any) { r.Line("        "+format, args...) }

// Show writes a program's output, indented, and at most so many lines of it.
func (r *Report) Show(text string, lines int) {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range all {
		if i == lines {
			r.Say("... %d more lines", len(all)-lines)
			return
		}
		r.Say("| %s", line)
	}
}

// step runs the n-th step between its title and its verdict.
func (r *Report) step(n int, title string, run func() error) error {
	r.Line("[%2d/%d] %s", n, r.total, title)
	start := time.Now()
	err := run()
	verdict, detail := "PASS", ""
	if err != nil {
		verdict, detail = "FAIL", ": "+err.Error()
	}
	r.Line("        %s  %.1f s%s", verdict, time.Since(start).Seconds(), detail)
	return err
}
