package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const (
	defaultTimeout = 5 * time.Second  // what stub resolvers wait for one answer (resolv.conf(5))
	defaultIdle    = 10 * time.Second // RFC 7766 6.2.3: a few seconds
	maxInFlight    = 4096             // forwarded UDP queries of the node: each holds a descriptor of our 20,000
	seatInFlight   = 1000             // the same of one task
	seatStreams    = 100              // TCP connections of one task: each may hold two descriptors
	awayWait       = time.Second      // for queries in flight, when the daemon stops
	askWait        = time.Second / 10 // from a resolver's connect to its query, on a busy node
)

// Redirection asks for a task's traffic to port 53 of one of its resolvers,
// UDP and TCP, to be sent to Local, a pair of sockets in the task's network
// namespace.
type Redirection struct {
	Task     lb.TaskID
	Resolver netip.Addr // without a zone
	Local    netip.AddrPort
	Listener *net.TCPListener // the TCP one of the pair
}

// Redirect is a redirection in force.
type Redirect interface {
	// Beat says that the sockets are being served. It is called every 400 ms;
	// when it is not called for 2 s the kernel stops redirecting. It is never
	// called after Close.
	Beat()
	// Close ends the redirection: the task talks to its resolver itself.
	Close() error
}

// Params are what a Responder needs.
type Params struct {
	Log *slog.Logger
	// Redirect puts a redirection in force. It is called with the sockets
	// bound and listening.
	Redirect func(Redirection) (Redirect, error)
	// Refused, if set, is told of queries for names outside of a task's scope,
	// of each name once a second. It must not wait.
	Refused func(Refusal)
	// Demand, if set, is told of every name that is asked for, lower case and
	// without the last dot, with the namespaces that the task may use. true
	// says that a source may know it and has not looked yet: then the query
	// waits until Wait returns. Demand must not wait.
	Demand func(name string, namespaces []string) (cold bool)
	Wait   func(ctx context.Context, name string, namespaces []string)
	// PortFile keeps the ports of the sockets over restarts, as JSON.
	PortFile string
	// HostsList keeps which hosts files have names of ours in them, as JSON, for
	// RemoveHosts and for the next run. "" keeps nothing.
	HostsList string
	// Timeout is how long a resolver may take for one UDP query or one TCP
	// connect; the task gets no answer after it. 0 is 5 s.
	Timeout time.Duration
	// Idle is how long a task's TCP connection may be silent. 0 is 10 s.
	Idle time.Duration
}

// Responder answers the queries of every attached task.
type Responder struct {
	params   Params
	counters counters
	state    atomic.Pointer[state]
	inFlight atomic.Int64
	buffers  sync.Pool // *[maxMessage]byte, for one answer on its way through
	ports    *ports
	hosts    *hosts

	mu    sync.Mutex // guards the following fields, and the order of states
	seats map[*Seat]struct{}
}

// New returns a Responder that knows no names and no tasks. An unreadable
// PortFile costs the old ports, which is logged. Close ends it.
func New(p Params) (*Responder, error) {
	if p.Timeout == 0 {
		p.Timeout = defaultTimeout
	}
	if p.Idle == 0 {
		p.Idle = defaultIdle
	}
	r := &Responder{params: p, seats: make(map[*Seat]struct{})}
	r.buffers.New = func() any { return new([maxMessage]byte) }
	r.state.Store(&state{table: newTable()})
	r.ports = loadPorts(p.PortFile, p.Log)
	r.hosts = startHosts(r.state.Load, p.HostsList, p.Log)
	return r, nil
}

// Publish makes a plan's names and tasks the ones that are answered for. Call
// it once the kernel holds the plan, so that a name is usable as soon as it
// resolves. It costs in proportion to the names that changed: a service that
// shares its Names with the plan before is skipped.
func (r *Responder) Publish(d *plan.Desired) {
	r.mu.Lock()
	defer r.mu.Unlock()
	prev := r.state.Load()
	next := prev.next(d)
	r.state.Store(next)
	if next.table != prev.table || !slices.Equal(prev.tasks, next.tasks) {
		r.hosts.wake()
	}
}

// Withdraw takes the names out of every hosts file, or puts them back. It does
// not wait until that is done.
func (r *Responder) Withdraw(yes bool) {
	r.hosts.withdrawn.Store(yes)
	r.hosts.wake()
}

// PruneHosts removes the names from hosts files that an earlier run has written
// and that are no planned task's. Call it once everybody who lists tasks has
// answered: a task that is merely not found yet needs its names.
func (r *Responder) PruneHosts() {
	r.hosts.prune.Store(true)
	r.hosts.wake()
}

// Away hands every task back to its own resolvers and waits, a tenth of a
// second and one second more at most, until the queries in flight are answered. The seats go on serving
// sockets that are connected to them until they are closed.
func (r *Responder) Away() {
	for _, s := range r.attached() {
		if err := s.away(); err != nil {
			r.params.Log.Error("end DNS redirection", "task", s.task.Name, "error", err)
		}
	}
	// Closing a seat ends the sockets connected to it, one that is about to
	// ask included.
	time.Sleep(askWait)
	ctx, cancel := context.WithTimeout(context.Background(), awayWait)
	defer cancel()
	for _, s := range r.attached() {
		s.idle(ctx)
	}
}

// Close closes every seat and ends the upkeep of hosts files, whose blocks
// stay.
func (r *Responder) Close() error {
	var first error
	for _, s := range r.attached() {
		if err := s.Close(); err != nil && first == nil {
			first = err
		}
	}
	r.hosts.close()
	return first
}

func (r *Responder) attached() []*Seat {
	r.mu.Lock()
	defer r.mu.Unlock()
	seats := make([]*Seat, 0, len(r.seats))
	for s := range r.seats {
		seats = append(seats, s)
	}
	return seats
}
