// Package reconcile is the loop that keeps the kernel at what the plan says:
// it gathers inputs, plans, writes the difference, publishes, and reads the
// kernel back now and then. One goroutine owns the planner and writes maps.
//
// It is level-triggered: an input only marks the loop dirty, and a pass takes
// the newest of everything. What a pass could not write, the next one writes.
package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const (
	// passInterval is the least time between two passes but the first of a
	// burst, so that a storm of changes costs one pass each 10 ms.
	passInterval = 10 * time.Millisecond
	// watchInterval is how often connection counts are looked at while the
	// planner waits for some.
	watchInterval = time.Second
	// resyncInterval is how often the kernel is read back.
	resyncInterval = 30 * time.Second
	// retryInterval is the pause after a pass that failed, whatever comes in:
	// the next one may have to write everything.
	retryInterval = time.Second
)

// Kernel is the datapath as the loop needs it.
type Kernel interface {
	Apply(c *plan.Change, now time.Time) error
	Publish() error
	Resync(want *plan.Desired) (repaired int, err error)
	Active(id lb.EndpointID) uint32
}

// Journal is the planner's memory on disk.
type Journal interface {
	// Append must have written b when it returns: what it names reaches the
	// kernel next.
	Append(b []byte) error
	// Compact may replace the whole by a snapshot. It is called after every
	// pass, so it must be cheap when there is nothing to do.
	Compact(snapshot func() []byte) error
}

// Params are what a Loop is made of.
type Params struct {
	Log     *slog.Logger
	Planner *plan.Planner
	Kernel  Kernel
	Journal Journal
	Catalog func() []*lb.Service
	Tasks   func() []lb.Task
	// Publish is called with each plan once the kernel holds it, from the
	// loop's goroutine; it must not block.
	Publish func(*plan.Desired)
	// Passed, if set, is told how long each pass took that changed something.
	Passed func(time.Duration)
}

// Loop is the reconciler. Its methods may be called from any goroutine.
type Loop struct {
	Params
	dirty   chan struct{}
	desired atomic.Pointer[plan.Desired] // in the kernel
	planned atomic.Pointer[plan.Desired] // by the last pass, in the kernel or not
	beat    atomic.Int64                 // unix nanoseconds of the last round
	first   chan struct{}                // closed when the first plan is in force
	once    sync.Once
	ended   chan struct{} // closed when Run returns

	mu       sync.Mutex // guards what follows, up to status
	verdicts []lb.VerdictChange
	strikes  []lb.Strike
	asks     []ask
	catalog  bool // changed since the last pass
	tasks    bool
	since    time.Time // when the oldest input that no pass took came in
	taken    time.Time // when the oldest input that a pass took, and that is not in force, came in
	failing  time.Time // when the first of the failed passes up to now began
	status   Status

	written   *plan.Desired // what the maps hold; nil: not known
	torn      bool          // an Apply failed: the maps may hold parts of plans that came after written
	unwritten []byte        // journal that is not on disk yet
	stale     bool          // the kernel is due to be read back
}

// ask is a call into the planner from another goroutine.
type ask struct {
	fn   func(*plan.Planner) error
	done chan error
}

// New makes a Loop; Run runs it.
func New(p Params) *Loop {
	return &Loop{Params: p, dirty: make(chan struct{}, 1), first: make(chan struct{}), ended: make(chan struct{}),
		catalog: true, tasks: true, since: time.Now()}
}

// CatalogChanged says that Params.Catalog returns something new.
func (l *Loop) CatalogChanged() { l.mark(func() { l.catalog = true }) }

// TasksChanged says that Params.Tasks returns something new.
func (l *Loop) TasksChanged() { l.mark(func() { l.tasks = true }) }

// Verdicts takes what probes concluded.
func (l *Loop) Verdicts(v []lb.VerdictChange) {
	l.mark(func() { l.verdicts = append(l.verdicts, v...) })
}

// Strike takes a failed connect.
func (l *Loop) Strike(s lb.Strike) { l.mark(func() { l.strikes = append(l.strikes, s) }) }

// Drain drains an endpoint by command, or ends that. It returns when the next
// plan is in force. When that plan could not be written, or ctx ended first,
// it is an error and the command stands all the same.
func (l *Loop) Drain(ctx context.Context, name lb.ServiceName, addr netip.AddrPort, on bool) error {
	return l.ask(ctx, func(p *plan.Planner) error { return p.Drain(name, addr, on) })
}

// SetZone tells the planner in which zone the node is. It returns as Drain does.
func (l *Loop) SetZone(ctx context.Context, zone string) error {
	return l.ask(ctx, func(p *plan.Planner) error {
		p.SetZone(zone)
		return nil
	})
}

// Settle returns when what came in before the call is in force, or when the
// pass that took it failed, with its error.
func (l *Loop) Settle(ctx context.Context) error {
	return l.ask(ctx, func(*plan.Planner) error { return nil })
}

var errEnded = errors.New("reconcile: the daemon is stopping")

func (l *Loop) ask(ctx context.Context, fn func(*plan.Planner) error) error {
	a := ask{fn: fn, done: make(chan error, 1)}
	l.mark(func() { l.asks = append(l.asks, a) })
	select {
	case err := <-a.done:
		return err
	case <-l.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Loop) mark(change func()) {
	l.mu.Lock()
	change()
	if l.since.IsZero() {
		l.since = time.Now()
	}
	l.mu.Unlock()
	select {
	case l.dirty <- struct{}{}:
	default: // a pass is due already
	}
}

// Desired returns the plan in force, nil before the first.
func (l *Loop) Desired() *plan.Desired { return l.desired.Load() }

// Planned returns the newest plan, nil before the first: the one in force, or
// one that the kernel does not hold yet.
func (l *Loop) Planned() *plan.Desired { return l.planned.Load() }

// InForce is closed when the first plan is in the kernel and published.
func (l *Loop) InForce() <-chan struct{} { return l.first }

// Heartbeat returns when the loop last went round.
func (l *Loop) Heartbeat() time.Time { return time.Unix(0, l.beat.Load()) }

// Run makes passes until ctx ends. Errors of passes are logged, counted and
// tried again; none ends the loop. It runs once.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	resync := time.NewTicker(resyncInterval)
	defer resync.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.dirty:
		case <-timer.C:
		case <-resync.C:
			l.stale = true
		}
		begun := time.Now()
		l.beat.Store(begun.UnixNano())
		wake, err := l.pass(begun)
		timer.Reset(time.Until(wake))
		pause := passInterval // later changes of a burst are taken together
		if err != nil {
			pause = retryInterval
		}
		if rest := pause - time.Since(begun); rest > 0 {
			sleep(ctx, rest)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
