package accesslog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
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

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
