package accesslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
)

// journal counts what is logged of files, by level.
type journal struct {
	mu   sync.Mutex
	said map[slog.Level][]string
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.said == nil {
		j.said = make(map[slog.Level][]string)
	}
	j.said[r.Level] = append(j.said[r.Level], r.Message)
	return nil
}

func (j *journal) expect(t *testing.T, errors, infos int) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if e, i := len(j.said[slog.LevelError]), len(j.said[slog.LevelInfo]); e != errors || i != infos {
		t.Errorf("%d errors and %d other messages were logged, want %d and %d: %v", e, i, errors, infos, j.said)
	}
}

// file is one in memory. Its limits are those of a disk or of a reader.
type file struct {
	block chan struct{} // non-nil: writes wait for it

	mu     sync.Mutex
	data   bytes.Buffer
	room   int // bytes that still fit
	opens  int
	closes int
}

func (f *file) Write(p []byte) (int, error) {
	if f.block != nil {
		<-f.block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(p), f.room)
	f.room -= n
	f.data.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closes++
	return nil
}

func (f *file) setRoom(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = n
}

func (f *file) open(string) (io.WriteCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens++
	return f, nil
}

// newLogs returns Logs that write to f, whatever the path.
func newLogs(f *file) (*Logs, *journal) {
	j := &journal{}
	l := New(slog.New(j))
	l.open = f.open
	return l, j
}

const plenty = 1 << 30

// pass lets time go on until all that can happen has.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func at(path string) lb.AccessLog { return lb.AccessLog{Path: path, Format: lb.LogText} }

// named is an entry that can be told by its path.
func named(n int) *Entry {
	e := whole(lb.AppHTTP)
	e.Path = fmt.Appendf(nil, "/%d", n)
	return e
}

// long is an entry whose line is about so many bytes.
func long(n int) *Entry {
	e := whole(lb.AppHTTP)
	e.Path = bytes.Repeat([]byte("x"), n)
	return e
}

func lineOf(e *Entry) string { return string(Append(nil, at("-"), e)) }

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func expectCounts(t *testing.T, l *Logs, lines, drops uint64) {
	t.Helper()
	if got := l.Lines(); got != lines || l.Dropped() != drops {
		t.Errorf("%d lines were written and %d dropped, want %d and %d", got, l.Dropped(), lines, drops)
	}
}

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

// A file that cannot be opened is tried again every second, said once, and
// shown as long as it is so.
func TestUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "not-there")
		path := filepath.Join(dir, "access.log")
		j := &journal{}
		l := New(slog.New(j))
		defer l.Close()
		for range 5 {
			l.Log(at(path), named(1))
			pass(writeEvery)
		}
		expectCounts(t, l, 0, 5)
		j.expect(t, 1, 0)
		if f := l.Failing(); len(f) != 1 || f[0].Path != path || !errors.Is(f[0].Err, os.ErrNotExist) {
			t.Errorf("failing: %v", f)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		pass(retryEvery)
		l.Log(at(path), named(2))
		pass(writeEvery)
		expectCounts(t, l, 1, 5)
		j.expect(t, 1, 1)
		if f := l.Failing(); len(f) != 0 {
			t.Errorf("failing after it was mended: %v", f)
		}
		if got := read(t, path); got != lineOf(named(2)) {
			t.Errorf("file: %s", got)
		}
	})
}

// A path that nothing is logged to any more fails no more.
func TestFormerlyUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLogs(&file{})
		defer l.Close()
		l.Log(at("a"), named(1))
		pass(writeEvery)
		if f := l.Failing(); len(f) != 1 {
			t.Errorf("failing: %v", f)
		}
		pass(idleAfter)
		if f := l.Failing(); len(f) != 0 {
			t.Errorf("failing after a minute without entries: %v", f)
		}
	})
}

// Reopen tries at once what could not be opened.
func TestReopenUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: plenty}
		l, _ := newLogs(f)
		defer l.Close()
		opened := l.open
		l.open = func(string) (io.WriteCloser, error) { return nil, syscall.EACCES }
		l.Log(at("a"), named(1))
		pass(writeEvery)
		l.open = opened
		l.Reopen()
		l.Log(at("a"), named(2))
		pass(writeEvery)
		expectCounts(t, l, 1, 1)
	})
}

// A disk that is full in the middle of a line costs that line and those that
// follow, and none of those after it has room again.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{room: len(lineOf(named(1))) + 10}
		l, j := newLogs(f)
		defer l.Close()
		for n := range 3 {
			l.Log(at("a"), named(n))
		}
		pass(writeEvery)
		expectCounts(t, l, 1, 2)
		l.Log(at("a"), named(3)) // not even the end of the torn line fits
		pass(writeEvery)
		expectCounts(t, l, 1, 3)
		if f := l.Failing(); len(f) != 1 || f[0].Err != syscall.ENOSPC {
			t.Errorf("failing: %v", f)
		}
		f.setRoom(plenty)
		l.Log(at("a"), named(4))
		pass(writeEvery)
		l.Log(at("a"), named(5))
		pass(writeEvery)
		expectCounts(t, l, 3, 3)
		j.expect(t, 1, 1)
		want := lineOf(named(0)) + lineOf(named(1))[:10] + "\n" + lineOf(named(4)) + lineOf(named(5))
		if got := f.data.String(); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	})
}

// A disk that is full every other time is not said every time.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &file{}
		l, j := newLogs(f)
		defer l.Close()
		for n := range 100 {
			f.setRoom(n % 2 * plenty)
			l.Log(at("a"), named(n))
			pass(writeEvery)
		}
		j.expect(t, 1, 1)
		pass(logEvery)
		f.setRoom(0)
		l.Log(at("a"), named(1))
		pass(writeEvery)
		j.expect(t, 2, 1)
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

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func BenchmarkLog(b *testing.B) {
	l, _ := newLogs(nil)
	l.open = func(string) (io.WriteCloser, error) { return discard{}, nil }
	defer l.Close()
	conf := at("a")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := whole(lb.AppHTTP)
		for pb.Next() {
			l.Log(conf, e)
		}
	})
	b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
}
