package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// report writes progress; the daemon's log may be mixed in.
type report struct {
	mu    sync.Mutex
	out   io.Writer
	total int // steps
}

func newReport(out io.Writer, total int) *report { return &report{out: out, total: total} }

// Write writes whole lines of a program's output.
func (r *report) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *report) line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

// say writes one line of what came of a step.
func (r *report) say(format string, args ...any) { r.line("        "+format, args...) }

// show writes a program's output, indented, and at most so many lines of it.
func (r *report) show(text string, lines int) {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range all {
		if i == lines {
			r.say("... %d more lines", len(all)-lines)
			return
		}
		r.say("| %s", line)
	}
}

// step runs the n-th step between its title and its verdict.
func (r *report) step(n int, title string, run func() error) error {
	r.line("[%2d/%d] %s", n, r.total, title)
	start := time.Now()
	err := run()
	verdict, detail := "PASS", ""
	if err != nil {
		verdict, detail = "FAIL", ": "+err.Error()
	}
	r.line("        %s  %.1f s%s", verdict, time.Since(start).Seconds(), detail)
	return err
}
