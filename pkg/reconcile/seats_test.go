package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// room records who is attached, as the real rooms would hold sockets.
type room struct {
	*testing.T
	seats  *Seats
	logged *syncBuffer

	mu       sync.Mutex
	attached map[string]*plan.Task
	calls    map[string]int
	fault    map[string]error
	wedge    map[string]chan struct{}
}

func newRoom(t *testing.T) *room {
	r := &room{T: t, logged: &syncBuffer{}, attached: map[string]*plan.Task{}, calls: map[string]int{},
		fault: map[string]error{}, wedge: map[string]chan struct{}{}}
	r.seats = NewSeats(slog.New(slog.NewTextHandler(r.logged, nil)), r.attach)
	return r
}

func (r *room) attach(_ context.Context, t *plan.Task) (io.Closer, error) {
	r.mu.Lock()
	r.calls[t.Name]++
	wedge, fault := r.wedge[t.Name], r.fault[t.Name]
	r.mu.Unlock()
	if wedge != nil {
		<-wedge // it does not heed its context: a system call does not
	}
	if fault != nil {
		return nil, fault
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attached[t.Name] != nil {
		r.Errorf("task %s is attached twice", t.Name)
	}
	r.attached[t.Name] = t
	return closer(func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.attached[t.Name] != t {
			r.Errorf("task %s is detached twice", t.Name)
		}
		delete(r.attached, t.Name)
		return nil
	}), nil
}

type closer func() error

func (c closer) Close() error { return c() }

func (r *room) who() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(r.attached)), " ")
}

func (r *room) called(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[name]
}

func (r *room) want(names string) {
	r.Helper()
	if got := r.who(); got != names {
		r.Errorf("attached are %q, want %q", got, names)
	}
}

func (r *room) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.seats.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func seatTask(name string, change func(*plan.Task)) *plan.Task {
	t := &plan.Task{Task: lb.Task{Name: name, NetnsCookie: 1, Resolvers: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, ID: 1}
	if change != nil {
		change(t)
	}
	return t
}

func tasksNamed(names ...string) (out []*plan.Task) {
	for _, n := range names {
		out = append(out, seatTask(n, nil))
	}
	return out
}

func TestSeatsFollowThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		stop := r.start()
		r.want("")
		select {
		case <-r.seats.Settled():
			t.Error("settled before anything was wanted")
		default:
		}
		r.seats.Want(tasksNamed("a", "b"))
		r.want("a b")
		<-r.seats.Settled()
		r.seats.Want(tasksNamed("b", "c"))
		r.want("b c")
		if r.called("b") != 1 {
			t.Error("a task that stays was attached again")
		}
		stop()
		r.want("")
	})
}

// Settle returns when what is wanted by then was tried and what is not was let
// go, or when its context ends.
func TestSeatsSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		stop := r.start()
		settled := func(want error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := r.seats.Settle(ctx); !errors.Is(err, want) {
				t.Errorf("settle: %v, want %v", err, want)
			}
		}
		r.seats.Want(tasksNamed("a", "b"))
		settled(nil)
		r.mu.Lock()
		if len(r.attached) != 2 {
			t.Errorf("settled with %d of 2 attached", len(r.attached))
		}
		r.wedge["c"] = make(chan struct{})
		r.mu.Unlock()
		r.seats.Want(tasksNamed("c"))
		settled(context.DeadlineExceeded)
		time.Sleep(attachTimeout)
		settled(nil) // c was tried
		r.want("")
		close(r.wedge["c"])
		r.want("c")
		r.seats.Want(nil)
		settled(nil)
		r.mu.Lock()
		if len(r.attached) != 0 {
			t.Errorf("settled with %d still attached", len(r.attached))
		}
		r.mu.Unlock()
		stop()
		settled(context.DeadlineExceeded) // nobody is there
	})
}

func TestSeatsAttachAgain(t *testing.T) {
	other := netip.MustParseAddr("10.0.0.3")
	for name, test := range map[string]struct {
		change func(*plan.Task)
		calls  int
	}{
		"nothing":    {nil, 1},
		"namespaces": {func(t *plan.Task) { t.Namespaces, t.Scope[0] = []string{"prod"}, 1 }, 1},
		"avoid":      {func(t *plan.Task) { t.Avoid = []lb.EndpointID{1} }, 1},
		"search":     {func(t *plan.Task) { t.Search = []string{"example"} }, 1},
		"resolvers":  {func(t *plan.Task) { t.Resolvers = []netip.Addr{other} }, 2},
		"hosts file": {func(t *plan.Task) { t.HostsFiles = []string{"/etc/hosts"} }, 1},
		"id":         {func(t *plan.Task) { t.ID = 2 }, 2},
		"netns":      {func(t *plan.Task) { t.NetnsCookie = 2 }, 2},
		"cgroup":     {func(t *plan.Task) { t.CgroupID = 2 }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				defer r.start()()
				r.seats.Want([]*plan.Task{seatTask("a", nil)})
				r.want("a")
				r.seats.Want([]*plan.Task{seatTask("a", test.change)})
				r.want("a")
				if n := r.called("a"); n != test.calls {
					t.Errorf("attached %d times, want %d", n, test.calls)
				}
			})
		})
	}
}

func TestSeatsRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		defer r.start()()
		r.fault["b"] = errors.New("no namespace")
		r.seats.Want(tasksNamed("a", "b", "c"))
		r.want("a c")
		<-r.seats.Settled() // tried is enough
		if errs := r.seats.Errors(); len(errs) != 1 || errs["b"] == nil {
			t.Errorf("errors %v", errs)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if n := r.called("b"); n != 11 {
			t.Errorf("tried %d times in 10 s, want one a second", n)
		}
		if n := r.logged.count("level=ERROR"); n != 1 {
			t.Errorf("the same error was logged %d times", n)
		}
		r.mu.Lock()
		delete(r.fault, "b")
		r.mu.Unlock()
		time.Sleep(time.Second)
		r.want("a b c")
		if errs := r.seats.Errors(); len(errs) != 0 {
			t.Errorf("errors %v", errs)
		}
		r.fault["d"] = errors.New("no namespace")
		r.seats.Want(tasksNamed("a", "d"))
		r.want("a")
		r.seats.Want(tasksNamed("a"))
		r.want("a")
		if errs := r.seats.Errors(); len(errs) != 0 {
			t.Errorf("errors %v of a task that is not wanted", errs)
		}
	})
}

// TestWedgedAttach: one task whose namespace or files hang holds nobody up for
// longer than the timeout, and is attached when it comes back.
func TestWedgedAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		wedge := make(chan struct{})
		r.wedge["b"] = wedge
		stop := r.start()
		r.seats.Want(tasksNamed("a", "b", "c"))
		time.Sleep(attachTimeout + time.Millisecond)
		r.want("a c")
		<-r.seats.Settled()
		if err := r.seats.Errors()["b"]; !errors.Is(err, errSlow) {
			t.Errorf("error %v", err)
		}
		begun := time.Now()
		r.seats.Want(tasksNamed("b", "c", "d"))
		r.want("c d")
		if d := time.Since(begun); d != 0 {
			t.Errorf("the others wait %s for it again", d)
		}
		time.Sleep(time.Minute)
		if n := r.called("b"); n != 1 {
			t.Errorf("attach is called %d times at once", n)
		}
		close(wedge)
		r.want("b c d")
		if errs := r.seats.Errors(); len(errs) != 0 {
			t.Errorf("errors %v", errs)
		}
		stop()
		r.want("")
	})
}

// TestWedgedAttachOfAnEarlierTask: what comes back late was for a task that is
// another or gone by now.
func TestWedgedAttachOfAnEarlierTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		wedge := make(chan struct{})
		r.wedge["a"], r.wedge["b"] = wedge, wedge
		defer r.start()()
		r.seats.Want(tasksNamed("a", "b"))
		time.Sleep(3 * attachTimeout)
		moved := seatTask("a", func(t *plan.Task) { t.NetnsCookie = 9 })
		r.seats.Want([]*plan.Task{moved})
		close(wedge)
		r.want("a")
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.attached["a"] != moved {
			t.Error("attached as it was before")
		}
	})
}

// TestStopWhileWedged: Run ends though an attach hangs, and what it brings in
// the end is closed.
func TestStopWhileWedged(t *testing.T) {
	for name, wait := range map[string]time.Duration{"while it is waited for": time.Second, "long after": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				wedge := make(chan struct{})
				r.wedge["b"] = wedge
				stop := r.start()
				r.seats.Want(tasksNamed("a", "b"))
				time.Sleep(wait)
				begun := time.Now()
				stop()
				if d := time.Since(begun); d != attachTimeout {
					t.Errorf("stopped after %s", d)
				}
				r.want("")
				close(wedge)
				r.want("")
			})
		})
	}
}

// TestSeatsOrder: attached in the order of the plan, so that a start is the
// same each time.
func TestSeatsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		s := NewSeats(slog.New(slog.DiscardHandler), func(_ context.Context, t *plan.Task) (io.Closer, error) {
			order = append(order, t.Name)
			return closer(func() error { return fmt.Errorf("close %s", t.Name) }), nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		s.Want(tasksNamed("a", "b", "c", "d", "e"))
		synctest.Wait()
		cancel()
		<-done
		if got := strings.Join(order, ""); got != "abcde" {
			t.Errorf("order %s", got)
		}
	})
}
