package accesslog

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
)

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
