package accesslog

import (
	"cmp"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
)

const (
	queueBytes  = 1 << 20          // of lines that wait to be written to one file
	writeEvery  = time.Second / 10 // how long a line may wait for others
	closeWithin = 2 * time.Second  // what is left then is dropped
)

// Logs are the access logs of all services. Services with the same path share
// a file. All methods may be called at once.
type Logs struct {
	log   *slog.Logger
	open  func(path string) (io.WriteCloser, error)
	lines atomic.Uint64
	drops atomic.Uint64

	mu    sync.RWMutex // guards the following
	sinks map[string]*sink
	ended bool
	wg    sync.WaitGroup
}

// Failure is a file that takes no lines.
type Failure struct {
	Path string
	Err  error
}

// New returns Logs that write nothing yet. Close ends them.
func New(log *slog.Logger) *Logs {
	return &Logs{log: log, open: openFile, sinks: make(map[string]*sink)}
}

// Log takes an entry. It never waits for a file: when a file is so slow that a
// megabyte of lines waits for it, the entry is dropped and counted.
func (l *Logs) Log(c lb.AccessLog, e *Entry) {
	if s := l.sink(c.Path); s == nil || !s.add(c, e) {
		l.drops.Add(1)
	}
}

// Lines is how many entries were written.
func (l *Logs) Lines() uint64 { return l.lines.Load() }

// Dropped is how many entries were not and will not be.
func (l *Logs) Dropped() uint64 { return l.drops.Load() }

// Failing returns the files that could not be written when that was last tried,
// within a minute, sorted by path.
func (l *Logs) Failing() []Failure {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []Failure
	for path, s := range l.sinks {
		if err := s.failure.Load(); err != nil {
			out = append(out, Failure{path, *err})
		}
	}
	slices.SortFunc(out, func(a, b Failure) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// Reopen has every file opened anew, after somebody has moved it away. What is
// logged from now on is not written to the old one.
func (l *Logs) Reopen() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.sinks {
		s.reopen.Store(true)
		s.signal()
	}
}

// Close writes what waits. After two seconds it gives up on files that take
// nothing, such as a pipe that is not read, and returns
// os.ErrDeadlineExceeded.
func (l *Logs) Close() error {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		for _, s := range l.sinks {
			close(s.stop)
		}
	}
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(closeWithin)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

// sink returns that of a path; nil after Close.
func (l *Logs) sink(path string) *sink {
	l.mu.RLock()
	s := l.sinks[path]
	l.mu.RUnlock()
	if s != nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s = l.sinks[path]; s != nil || l.ended {
		return s
	}
	s = &sink{path: path, logs: l, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	l.sinks[path] = s
	l.wg.Go(s.run)
	return s
}
