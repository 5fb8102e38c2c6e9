package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// ender records what a Terminator does.
type ender struct {
	*Terminator
	logged *syncBuffer

	mu     sync.Mutex
	active map[lb.EndpointID]uint32
	rounds [][]lb.EndpointID
	fault  error
	block  chan struct{}
}

func newEnder() *ender {
	e := &ender{logged: &syncBuffer{}, active: map[lb.EndpointID]uint32{}}
	e.Terminator = NewTerminator(Terminator{
		Log: slog.New(slog.NewTextHandler(e.logged, nil)),
		Active: func(id lb.EndpointID) uint32 {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.active[id]
		},
		Terminate: e.terminate,
	})
	return e
}

func (e *ender) terminate(ids []lb.EndpointID) (int, error) {
	e.mu.Lock()
	block := e.block
	e.mu.Unlock()
	if block != nil {
		<-block
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rounds = append(e.rounds, slices.Clone(ids))
	return len(ids), e.fault
}

func (e *ender) take() [][]lb.EndpointID {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	out := e.rounds
	e.rounds = nil
	return out
}

func (e *ender) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *ender) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	return func() { cancel(); <-done }
}

func doomed(ids ...lb.EndpointID) *plan.Desired { return &plan.Desired{Terminate: ids} }

func TestTerminator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnder()
		defer e.start()()
		e.set(func() { e.active[1], e.active[3] = 4, 1 })
		e.Publish(doomed())
		time.Sleep(time.Second)
		if got := e.take(); got != nil {
			t.Errorf("ended %v though no endpoint is doomed", got)
		}
		e.Publish(doomed(1, 2))
		if got := e.take(); len(got) != 1 || !slices.Equal(got[0], []lb.EndpointID{1}) {
			t.Errorf("ended %v at once, want those of 1", got)
		}
		time.Sleep(time.Second)
		if got := e.take(); len(got) != 5 {
			t.Errorf("%d rounds in a second while connections live, want 5", len(got))
		}
		e.set(func() { clear(e.active) })
		time.Sleep(time.Minute)
		if got := e.take(); got != nil {
			t.Errorf("ended %v though nothing is connected", got)
		}
		e.set(func() { e.active[2] = 1 }) // one that chose just before
		time.Sleep(terminateInterval + time.Millisecond)
		if got := e.take(); len(got) != 1 || !slices.Equal(got[0], []lb.EndpointID{2}) {
			t.Errorf("ended %v, want the late one of 2", got)
		}
		e.Publish(doomed())
		time.Sleep(time.Minute)
		if got := e.take(); got != nil {
			t.Errorf("ended %v after the plan took it back", got)
		}
	})
}

// TestTerminatorTakesTheLatest: what was published while it worked and is not
// the latest is never looked at.
func TestTerminatorTakesTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnder()
		defer e.start()()
		block := make(chan struct{})
		e.set(func() { e.block = block; e.active[1], e.active[2], e.active[3] = 1, 1, 1 })
		e.Publish(doomed(1))
		synctest.Wait()
		begun := time.Now()
		e.Publish(doomed(2))
		e.Publish(doomed(3))
		if d := time.Since(begun); d != 0 {
			t.Errorf("Publish waited %s", d)
		}
		e.set(func() { e.block = nil })
		close(block)
		got := e.take()
		if len(got) != 2 || got[0][0] != 1 || !slices.Equal(got[1], []lb.EndpointID{3}) {
			t.Errorf("ended %v, want 1 and then 3", got)
		}
	})
}

// TestTerminatorUnderPlans: a storm of plans that doom the same is no storm of
// rounds, each of which reads every connection.
func TestTerminatorUnderPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnder()
		defer e.start()()
		e.set(func() { e.active[1] = 1; e.fault = errFault })
		for range 100 {
			e.Publish(doomed(1))
			time.Sleep(10 * time.Millisecond)
		}
		if got := e.take(); len(got) < 5 || len(got) > 6 {
			t.Errorf("%d rounds in a second, want 5 or 6", len(got))
		}
		if n := e.logged.count("level=ERROR"); n != 1 {
			t.Errorf("the same error was logged %d times", n)
		}
		e.set(func() { e.fault = nil })
		time.Sleep(2 * terminateInterval)
		e.set(func() { e.fault = errFault })
		time.Sleep(2 * terminateInterval)
		synctest.Wait()
		if n := e.logged.count("level=ERROR"); n != 2 {
			t.Errorf("logged %d errors, want 2: it had gone in between", n)
		}
	})
}
