package reconcile

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"connectd/pkg/plan"
)

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

	seated map[string]seat // by task name; owned by Run
}

type seat struct {
	task *plan.Task
	io.Closer
}

// NewSeats returns an empty Seats. attach opens a task's sockets.
func NewSeats(log *slog.Logger, attach func(context.Context, *plan.Task) (io.Closer, error)) *Seats {
	return &Seats{log: log, attach: attach, wake: make(chan struct{}, 1), errs: map[string]error{},
		settle: make(chan struct{}), seated: map[string]seat{}}
}

// Want sets the tasks to be attached. It does not wait.
func (s *Seats) Want(tasks []*plan.Task) {
	s.mu.Lock()
	s.want = tasks
	s.mu.Unlock()
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

// Run attaches and detaches until ctx ends, then detaches everything.
func (s *Seats) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			s.round(context.WithoutCancel(ctx), nil)
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		s.mu.Lock()
		want := s.want
		s.mu.Unlock()
		if failed := s.round(ctx, want); failed {
			timer.Reset(retryInterval)
		}
		if first {
			close(s.settle)
			first = false
		}
	}
}

// round makes the seats what is wanted, as far as it goes.
func (s *Seats) round(ctx context.Context, want []*plan.Task) (failed bool) {
	wanted := make(map[string]*plan.Task, len(want))
	for _, t := range want {
		wanted[t.Name] = t
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
	errs := make(map[string]error)
	for name, t := range wanted {
		if _, ok := s.seated[name]; ok {
			continue
		}
		c, err := s.attach(ctx, t)
		if err != nil {
			errs[name] = err
			continue
		}
		s.seated[name] = seat{t, c}
		s.log.Info("attached task", "task", name)
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

// sameSockets reports whether the sockets made for one serve the other.
func sameSockets(a, b *plan.Task) bool {
	return a.ID == b.ID && a.NetnsCookie == b.NetnsCookie && a.CgroupID == b.CgroupID &&
		a.HostsFile == b.HostsFile && slices.Equal(a.Resolvers, b.Resolvers)
}
