package accesslog

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A standard output that nobody reads any more costs lines and not the daemon:
// Go ends a process that finds out on descriptor 1.
func TestBrokenStandardOutput(t *testing.T) {
	const child = "ACCESSLOG_TEST_CHILD"
	if os.Getenv(child) != "" {
		os.Exit(brokenOutput())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stdout = w
	var said strings.Builder
	cmd.Stderr = &said
	r.Close()
	err = cmd.Run()
	w.Close()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != lived {
		t.Errorf("the process ended with %v, want exit status %d\n%s", err, lived, said.String())
	}
}

// lived is an exit status that nothing else has.
const lived = 42

func brokenOutput() int {
	l := New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	l.Log(at("-"), named(1))
	if err := l.Close(); err != nil {
		return 3
	}
	if f := l.Failing(); l.Dropped() != 1 || len(f) != 1 || !errors.Is(f[0].Err, syscall.EPIPE) {
		return 4
	}
	return lived
}

// Standard output is written to from its first line to its last.
func TestStandardOutput(t *testing.T) {
	const child = "ACCESSLOG_TEST_CHILD"
	if os.Getenv(child) != "" {
		l := New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
		l.Log(at("-"), named(1))
		l.Close()
		l = New(slog.New(slog.NewTextHandler(os.Stderr, nil))) // descriptor 1 is open still
		l.Log(at("-"), named(2))
		l.Close()
		os.Exit(lived)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.Output()
	if want := lineOf(named(1)) + lineOf(named(2)); string(out) != want {
		t.Errorf("%v\n got %s\nwant %s", err, out, want)
	}
}
