package accesslog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
)

// Services that name the same path share a file, each with its format.
func TestSharedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "access.log")
		l := New(slog.New(slog.DiscardHandler))
		defer l.Close()
		l.Log(at(path), named(1))
		l.Log(lb.AccessLog{Path: path, Format: lb.LogJSON}, named(2))
		pass(writeEvery)
		want := lineOf(named(1)) + string(Append(nil, js, named(2)))
		if got := read(t, path); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o137 != 0 {
			t.Errorf("mode %v, %v: more may read it than the group", info.Mode(), err)
		}
		expectCounts(t, l, 2, 0)
		// What is there is kept.
		again := New(slog.New(slog.DiscardHandler))
		again.Log(at(path), named(3))
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != want+lineOf(named(3)) {
			t.Errorf("after a restart: %s", got)
		}
	})
}

// Lines that come close together are one write, unless they are many.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLogs(&file{room: plenty})
		defer l.Close()
		l.Log(at("a"), named(1))
		l.Log(at("a"), named(2))
		pass(writeEvery - 1)
		expectCounts(t, l, 0, 0)
		pass(1)
		expectCounts(t, l, 2, 0)
		// Many times what fits, and no time passes.
		n := uint64(2)
		for range 5 {
			for range 6 {
				l.Log(at("a"), long(queueBytes/10))
				n++
			}
			synctest.Wait()
		}
		if l.Dropped() != 0 {
			t.Errorf("%d lines were dropped, and the file takes all at once", l.Dropped())
		}
		pass(writeEvery)
		expectCounts(t, l, n, 0)
	})
}

// A queue that grew while the file was slow waits no longer.
func TestBatchAfterSlowWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty, block: make(chan struct{})}
		l, _ := newLogs(f)
		defer l.Close()
		l.Log(at("a"), named(1))
		pass(writeEvery)
		for range 6 {
			l.Log(at("a"), long(queueBytes/10))
		}
		close(f.block)
		synctest.Wait()
		expectCounts(t, l, 7, 0)
	})
}

// A file that is not written to as fast as there are requests costs lines, and
// neither memory nor time.
func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty, block: make(chan struct{})}
		l, _ := newLogs(f)
		const n = 100
		for range n {
			l.Log(at("a"), long(queueBytes/20))
			synctest.Wait() // the writer takes what it can
		}
		dropped := l.Dropped()
		s := l.sinks["a"]
		s.mu.Lock()
		waiting := len(s.queue)
		s.mu.Unlock()
		if waiting > queueBytes+maxLine || dropped == 0 {
			t.Errorf("%d bytes wait, %d lines were dropped", waiting, dropped)
		}
		l.Log(at("b"), named(1)) // other files have room of their own
		if l.Dropped() != dropped {
			t.Error("a full queue costs the lines of another file")
		}
		close(f.block)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		expectCounts(t, l, n+1-dropped, dropped)
		if got := strings.Count(f.data.String(), "\n"); uint64(got) != l.Lines() {
			t.Errorf("%d lines are in the file", got)
		}
	})
}

// Rotated: what was logged before is somewhere whole, what is logged after
// Reopen is in the new file.
func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "access.log")
		l := New(slog.New(slog.DiscardHandler))
		defer l.Close()
		l.Log(at(path), named(1))
		pass(writeEvery)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		l.Log(at(path), named(2)) // the old file goes on until somebody says so
		pass(writeEvery)
		l.Log(at(path), named(3))
		pass(writeEvery / 2) // the line waits
		l.Reopen()
		l.Log(at(path), named(4))
		pass(writeEvery)
		if got, want := read(t, path+".1"), lineOf(named(1))+lineOf(named(2)); got != want {
			t.Errorf("old file\n got %s\nwant %s", got, want)
		}
		if got, want := read(t, path), lineOf(named(3))+lineOf(named(4)); got != want {
			t.Errorf("new file\n got %s\nwant %s", got, want)
		}
		expectCounts(t, l, 4, 0)
	})
}

// Files and buffers of services that have no requests any more are let go.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty}
		l, _ := newLogs(f)
		defer l.Close()
		l.Log(at("a"), named(1))
		pass(writeEvery)
		if opens, closes, kept := f.used(l.sinks["a"]); opens != 1 || closes != 0 || kept == 0 {
			t.Fatalf("opened %d times, closed %d times, %d bytes of buffers", opens, closes, kept)
		}
		pass(idleAfter)
		if opens, closes, kept := f.used(l.sinks["a"]); opens != 1 || closes != 1 || kept != 0 {
			t.Errorf("idle: opened %d times, closed %d times, %d bytes of buffers", opens, closes, kept)
		}
		l.Log(at("a"), named(2))
		pass(writeEvery)
		expectCounts(t, l, 2, 0)
	})
}

// used is how often the file was opened and closed, and what its sink keeps.
func (f *file) used(s *sink) (opens, closes, kept int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.opens, f.closes, cap(s.queue) + cap(s.spare)
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty}
		l, _ := newLogs(f)
		for n := range 10 {
			l.Log(at(fmt.Sprint(n)), named(n))
		}
		begin := time.Now()
		if err := l.Close(); err != nil || time.Since(begin) != 0 {
			t.Errorf("close: %v after %s", err, time.Since(begin))
		}
		expectCounts(t, l, 10, 0)
		if f.closes != 10 {
			t.Errorf("%d of 10 files were closed", f.closes)
		}
		l.Log(at("0"), named(1))
		l.Log(at("new"), named(1))
		l.Reopen()
		expectCounts(t, l, 10, 2)
		if err := l.Close(); err != nil {
			t.Errorf("close again: %s", err)
		}
	})
}

// Nobody reads: the daemon ends all the same.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty, block: make(chan struct{})}
		l, _ := newLogs(f)
		l.Log(at("a"), named(1))
		begin := time.Now()
		if err := l.Close(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != closeWithin {
			t.Errorf("close: %v after %s", err, time.Since(begin))
		}
		close(f.block)
		synctest.Wait()
		expectCounts(t, l, 1, 0)
	})
}

// Loops log at once, while files are opened anew, moved, and closed: every
// line is in a file, whole and once, or counted.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := New(slog.New(slog.DiscardHandler))
	paths := [...]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	const loops, each = 4, 500
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			for n := range each {
				l.Log(at(paths[n%2]), named(loop*each+n))
			}
		})
	}
	for n := range 20 {
		_ = os.Rename(paths[0], fmt.Sprint(paths[0], ".", n)) // it may not be there yet
		l.Reopen()
		l.Failing()
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	expectCounts(t, l, loops*each, 0)
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, path := range files {
		for line := range strings.Lines(read(t, path)) {
			seen[line]++
		}
	}
	for n := range loops * each {
		if got := seen[lineOf(named(n))]; got != 1 {
			t.Fatalf("line %d is there %d times", n, got)
		}
	}
}

// An entry costs no allocation once buffers have grown.
func TestNoAllocation(t *testing.T) {
	l, _ := newLogs(&file{room: plenty})
	l.open = func(string) (io.WriteCloser, error) { return discard{}, nil }
	defer l.Close()
	conf, e := at("a"), whole(lb.AppHTTP)
	s := l.sink("a")
	for range 2 { // both buffers
		s.queue = make([]byte, 0, queueBytes)
		s.take(false)
		s.release(make([]byte, 0, queueBytes))
	}
	if n := testing.AllocsPerRun(1000, func() { l.Log(conf, e) }); n != 0 {
		t.Errorf("%v allocations for an entry", n)
	}
}
