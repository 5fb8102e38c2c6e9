package accesslog

import (
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
)

const (
	// maxLine is of memory that is kept for one line: a head of 64 KiB whose
	// every byte is escaped, mostly.
	maxLine = 200 << 10
	// idleAfter is when a file that nothing is written to is closed and its
	// buffers are let go: paths of former services would hold them for ever.
	idleAfter = time.Minute
)

// sink is one file and the lines that wait for it.
type sink struct {
	path    string
	logs    *Logs
	wake    chan struct{} // an element when there is something to do
	stop    chan struct{}
	reopen  atomic.Bool
	failure atomic.Pointer[error] // of the last write; nil: it went well, or was long ago

	mu    sync.Mutex // guards the following
	queue []byte     // lines to be written
	count uint64     // of them
	spare []byte     // the other buffer
	ended bool       // nobody will write any more
}

// add says whether there was room.
func (s *sink) add(c lb.AccessLog, e *Entry) bool {
	s.mu.Lock()
	before := len(s.queue)
	if before >= queueBytes || s.ended {
		s.mu.Unlock()
		return false
	}
	s.queue = Append(s.queue, c, e)
	s.count++
	after := len(s.queue)
	s.mu.Unlock()
	// A queue that is half full is not to wait until it is full.
	if before == 0 || before < queueBytes/2 && after >= queueBytes/2 {
		s.signal()
	}
	return true
}

func (s *sink) halfFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) >= queueBytes/2
}

func (s *sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take returns what waits. It is given back with release.
func (s *sink) take(last bool) (lines []byte, count uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, count = s.queue, s.count
	s.queue, s.count, s.spare = s.spare[:0], 0, nil
	s.ended = last
	return lines, count
}

func (s *sink) release(lines []byte) {
	if cap(lines) > queueBytes+maxLine {
		lines = nil // one long line must not be kept for ever
	}
	s.mu.Lock()
	s.spare = lines[:0]
	s.mu.Unlock()
}

// shrink lets go of buffers that nothing waits in.
func (s *sink) shrink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue, s.spare = nil, nil
	}
}

// run writes until the sink is stopped, and then what is left.
func (s *sink) run() {
	w := &writer{sink: s}
	defer w.closeFile()
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	together := time.NewTimer(writeEvery)
	defer together.Stop()
	for {
		idle.Reset(idleAfter)
		select {
		case <-s.stop:
			w.flush(true)
			return
		case <-idle.C:
			w.closeFile()
			s.shrink()
			s.failure.Store(nil) // of a path that nobody logs to any more, perhaps
			continue
		case <-s.wake:
		}
		if !s.halfFull() {
			// Lines that come close together are written at once.
			together.Reset(writeEvery)
			select {
			case <-s.stop:
			case <-together.C:
			case <-s.wake:
			}
		}
		w.flush(false)
	}
}
