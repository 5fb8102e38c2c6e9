package accesslog

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
)

const (
	queueBytes  = 1 << 20          // of lines that wait to be written to one file
	writeEvery  = time.Second / 10 // how long a line may wait for others
	closeWithin = 2 * time.Second  // what is left then is dropped
	retryEvery  = time.Second      // opening a file that could not be opened
	maxLine     = 200 << 10        // of memory a sink keeps for one line
)

// Logs are the access logs of all services. Services with the same path share
// a file.
type Logs struct {
	log    *slog.Logger
	stdout io.Writer
	lines  atomic.Uint64
	drops  atomic.Uint64

	mu    sync.RWMutex
	sinks map[string]*sink
	ended bool
	wg    sync.WaitGroup
}

// sink is one file.
type sink struct {
	path string
	logs *Logs
	wake chan struct{} // an element when there is something to write
	stop chan struct{}

	mu    sync.Mutex
	queue []byte // lines to be written
	count uint64 // of them
	spare []byte // the other buffer

	reopen atomic.Bool
}

// New returns Logs that write nothing yet. Close ends them.
func New(log *slog.Logger) *Logs {
	return &Logs{log: log, stdout: os.Stdout, sinks: make(map[string]*sink)}
}

// Log takes an entry. It never waits for a file: when a file is so slow that a
// megabyte of lines waits for it, the entry is dropped and counted.
func (l *Logs) Log(c lb.AccessLog, e *Entry) {
	s := l.sink(c.Path)
	if s == nil {
		l.drops.Add(1)
		return
	}
	s.mu.Lock()
	first := len(s.queue) == 0
	if len(s.queue) >= queueBytes {
		s.mu.Unlock()
		l.drops.Add(1)
		return
	}
	s.queue = Append(s.queue, c, e)
	s.count++
	s.mu.Unlock()
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Lines and Dropped are how many entries were written and how many were not.
func (l *Logs) Lines() uint64   { return l.lines.Load() }
func (l *Logs) Dropped() uint64 { return l.drops.Load() }

// Reopen has every file opened anew, after somebody has moved it away.
func (l *Logs) Reopen() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.sinks {
		s.reopen.Store(true)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Close writes what waits, for two seconds at most.
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
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return os.ErrDeadlineExceeded // a reader of a pipe that does not read
	}
}

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
