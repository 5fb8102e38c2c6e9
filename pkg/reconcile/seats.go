package reconcile

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"connectd/pkg/plan"
)

// attachTimeout is how long one task may keep the others waiting: attaching
// takes about a millisecond, but the files and the namespace are the task's
// own and may hang. One that takes longer goes on beside the others.
const attachTimeout = 5 * time.Second

// Seats keeps every planned task attached to the rooms that hold sockets in
// its network namespace. It works one task at a time, away from the loop that
// writes maps, for entering a namespace may take long.
type Seats struct {
	log    *slog.Logger
	attach func(context.Context, *plan.Task) (io.Closer, error)
	wake   chan struct{}

	mu     sync.Mutex
	want   []*plan.Task
	errs   map[string]error // by task name: why it is not attached
	settle chan struct{}    // closed when all that is wanted was tried
	asks   []chan struct{}  // each closed when what was wanted by then was tried

	seated  map[string]seat     // by task name; owned by Run
	pending map[string]*attempt // by task name: over the timeout; owned by Run
}

type seat struct {
	task *plan.Task
	io.Closer
}

// attempt is one call of attach.
type attempt struct {
	task *plan.Task
	done chan struct{} // closed when the call returned; then what follows is set
	seat io.Closer
	err  error
}

var errSlow = fmt.Errorf("still attaching after %s", attachTimeout)

// NewSeats returns an empty Seats. attach opens a task's sockets; it is never
// called for a task that it has not returned for yet.
func NewSeats(log *slog.Logger, attach func(context.Context, *plan.Task) (io.Closer, error)) *Seats {
	return &Seats{log: log, attach: attach, wake: make(chan struct{}, 1), errs: map[string]error{},
		settle: make(chan struct{}), seated: map[string]seat{}, pending: map[string]*attempt{}}
}

// Want sets the tasks to be attached. It does not wait.
func (s *Seats) Want(tasks []*plan.Task) {
	s.mu.Lock()
	s.want = tasks
	s.mu.Unlock()
	s.stir()
}

func (s *Seats) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Errors returns why tasks are not attached, by name.
func (s *Seats) Errors() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.errs)
}

// Settled is closed once the first tasks wanted have all been tried.
func (s *Seats) Settled() <-chan struct{} { return s.settle }

// Settle returns when all that is wanted by now has been tried and what is not
// has been detached.
func (s *Seats) Settle(ctx context.Context) error {
	done := make(chan struct{})
	s.mu.Lock()
	s.asks = append(s.asks, done)
	s.mu.Unlock()
	s.stir()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run attaches and detaches until ctx ends, then detaches everything. An
// attach that hangs then is given up on after attachTimeout.
func (s *Seats) Run(ctx context.Context) error {
	defer s.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		s.mu.Lock()
		want, asks := s.want, s.asks
		s.asks = nil
		s.mu.Unlock()
		if failed := s.round(ctx, want); failed {
			timer.Reset(retryInterval)
		}
		for _, done := range asks {
			close(done)
		}
		if first {
			close(s.settle)
			first = false
		}
	}
}

// round makes the seats what is wanted, as far as it goes.
func (s *Seats) round(ctx context.Context, want []*plan.Task) (failed bool) {
	s.detach(want)
	errs := make(map[string]error)
	for _, t := range want {
		if _, ok := s.seated[t.Name]; ok {
			continue
		}
		if err := s.try(ctx, t); err != nil {
			errs[t.Name] = err
		}
		if ctx.Err() != nil {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, err := range errs {
		if old := s.errs[name]; old == nil || old.Error() != err.Error() {
			s.log.Error("attach task, will try again", "task", name, "error", err)
		}
	}
	s.errs = errs
	return len(errs) > 0
}

// detach closes what is not wanted, or wanted otherwise.
func (s *Seats) detach(want []*plan.Task) {
	wanted := make(map[string]*plan.Task, len(want))
	for _, t := range want {
		wanted[t.Name] = t
	}
	for _, a := range s.pending {
		select {
		case <-a.done:
			s.settled(a) // an error shows again when it is tried again
		default:
		}
	}
	for name, held := range s.seated {
		if t := wanted[name]; t != nil && sameSockets(held.task, t) {
			continue
		}
		if err := held.Close(); err != nil {
			s.log.Warn("detach task", "task", name, "error", err)
		}
		delete(s.seated, name)
	}
}

// try attaches a task, and waits for it at most attachTimeout.
func (s *Seats) try(ctx context.Context, t *plan.Task) error {
	if s.pending[t.Name] != nil {
		return errSlow
	}
	a := &attempt{task: t, done: make(chan struct{})}
	s.pending[t.Name] = a
	go func() {
		a.seat, a.err = s.attach(ctx, t)
		close(a.done)
	}()
	timer := time.NewTimer(attachTimeout)
	defer timer.Stop()
	select {
	case <-a.done:
		return s.settled(a)
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	go func() {
		<-a.done
		s.stir()
	}()
	return errSlow
}

// settled takes over what an attempt that is done has brought.
func (s *Seats) settled(a *attempt) error {
	delete(s.pending, a.task.Name)
	if a.err != nil {
		return a.err
	}
	s.seated[a.task.Name] = seat{a.task, a.seat}
	s.log.Info("attached task", "task", a.task.Name)
	return nil
}

// close detaches everything. What hangs is left to its goroutine, which
// closes what it still gets.
func (s *Seats) close() {
	late, cancel := context.WithTimeout(context.Background(), attachTimeout)
	defer cancel()
	for _, a := range s.pending {
		select {
		case <-a.done:
			s.settled(a)
			continue
		case <-late.Done():
		}
		s.log.Warn("gave up on attaching task", "task", a.task.Name)
		go func() {
			if <-a.done; a.err == nil {
				a.seat.Close()
			}
		}()
	}
	s.detach(nil)
}

// sameSockets reports whether the sockets made for one serve the other.
func sameSockets(a, b *plan.Task) bool {
	return a.ID == b.ID && a.NetnsCookie == b.NetnsCookie && a.CgroupID == b.CgroupID &&
		slices.Equal(a.Resolvers, b.Resolvers)
}
