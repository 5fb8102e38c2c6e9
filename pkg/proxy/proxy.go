// Package proxy is the forwarder: it carries the requests of services that
// speak HTTP from a task to an endpoint in one hop, inside the task's own
// network namespace, with retries, timeouts and a choice for every request.
//
// A few loops own all sockets. Each is one goroutine over an epoll of its own
// (loop.go); a request in flight is straight-line code in a coroutine
// (exchange.go, try.go, relay.go). What may be done with a request is decided
// in package route, how its head is read and rewritten in package http1.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/proxy/h2"
	"connectd/pkg/proxy/route"
)

const (
	backlog     = 4096                   // of listen; net.core.somaxconn of the namespace caps it
	beatEvery   = 400 * time.Millisecond // the kernel gives up on us after 2 s
	acceptRetry = 100 * time.Millisecond
	highest     = 1 << 16                // number of a descriptor; the tables by number are as long
	lastAccepts = 100 * time.Millisecond // from telling the kernel to the last connection that it still left to us

	headTimeout       = 10 * time.Second    // for a request head, from its first byte
	connectTimeout    = time.Second         // of one try
	silentAfter       = 3 * time.Second / 2 // without any acknowledgement a request goes elsewhere, if it may
	sameEndpointDelay = 25 * time.Millisecond
	lingerTimeout     = time.Second
	farewellTimeout   = time.Second // in which an HTTP/2 client reads that it is to go
	lingerBytes       = 64 << 10
	poolIdle          = 4 * time.Second  // less than servers keep an idle connection, most of them
	freshIdle         = time.Second      // the same for a request that cannot be sent twice
	maxIdle           = 1024             // connections in one pool
	h2Idle            = 30 * time.Second // an HTTP/2 connection to an endpoint says goodbye, so it may wait for longer
	h2PerDial         = 100              // requests that wait for one HTTP/2 connection
	maxMoves          = 16               // how often a request goes to another because there was no room

	maxInterim     = 16 // 1xx answers to one request
	headSlack      = 512
	maxReplayTotal = 32 << 20      // bytes of request bodies kept beyond a small buffer each
	maxHolding     = h2.MaxHolding // bytes a loop may hold for slow readers before it reads little at once
)

// Params are what a Proxy needs.
type Params struct {
	Log *slog.Logger
	// Home is the network namespace that the process runs in.
	Home *netns.Handle
	// Forward tells the kernel of listeners.
	Forward func(Listeners) (Forwarder, error)
	// Strike takes runs of failures. It must not wait.
	Strike func(lb.Strike)
	// Ready answers for a task that asks at ReadyAt whether it is ready, and
	// why not, in a line. It must not wait. nil: nobody asks.
	Ready   func(lb.TaskID) (ok bool, detail string)
	ReadyAt netip.AddrPort
	// Access takes access log entries; nil discards them.
	Access *accesslog.Logs
	// Loops is how many goroutines carry requests; 0 is one for every two cores.
	Loops int
	// Drain is how long Away waits for requests in flight and for clients to
	// hear that their connection ends.
	Drain time.Duration
}

// Proxy is the forwarder of a node.
type Proxy struct {
	params   Params
	loops    []*loop
	table    *route.Table
	runs     route.Runs
	refusals refusals
	draining atomic.Bool
	replay   atomic.Int64
	left     chan struct{} // an element when a client has gone, while draining

	mu    sync.Mutex // guards the following
	seats map[uint64]*seat
	next  int // loop of the next seat
}

// New starts the loops. Close ends them.
func New(p Params) (*Proxy, error) {
	if p.Loops == 0 {
		p.Loops = max(1, runtime.GOMAXPROCS(0)/2)
	}
	x := &Proxy{params: p, table: route.New(), seats: make(map[uint64]*seat), left: make(chan struct{}, 1)}
	for range p.Loops {
		l, err := x.newLoop()
		if err != nil {
			return nil, errors.Join(err, x.Close())
		}
		x.loops = append(x.loops, l)
		go l.run()
	}
	return x, nil
}

// Publish makes a plan the one that requests go by. Those in flight go on by
// the plan that their present try began with.
func (p *Proxy) Publish(d *plan.Desired) {
	p.table.Publish(d)
}

// Active is how many requests and connections an endpoint has.
func (p *Proxy) Active(id lb.EndpointID) uint32 { return p.table.Active(id) }

// Terminate ends the connections to endpoints, and returns how many those
// were. A request of which the client has heard nothing yet is tried elsewhere
// where that is allowed.
func (p *Proxy) Terminate(ids []lb.EndpointID) int {
	doomed := make(map[lb.EndpointID]bool, len(ids))
	for _, id := range ids {
		doomed[id] = true
	}
	n := 0
	for _, l := range p.loops {
		l.call(func() {
			for u := range l.upstreams {
				if doomed[u.endpoint.ID] {
					u.terminate()
					n++
				}
			}
			for _, list := range l.h2pools {
				for _, u := range slices.Clone(list) {
					if doomed[u.endpoint.ID] && !u.dialing {
						u.hangUp()
						n++
					}
				}
			}
		})
	}
	return n
}

// terminate ends a connection to an endpoint.
func (u *upstream) terminate() {
	if u.x == nil {
		u.close()
		return
	}
	u.x.halt(stopEndpoint)
}

// Away hands new connections to the kernel, and waits until those that came
// before have ended, Params.Drain at most: requests in flight finish, and a
// client hears with its next answer that the connection ends.
func (p *Proxy) Away() {
	p.draining.Store(true)
	p.mu.Lock()
	seats := make([]*seat, 0, len(p.seats))
	for _, s := range p.seats {
		seats = append(seats, s)
	}
	p.mu.Unlock()
	if len(seats) == 0 {
		return
	}
	for _, s := range seats {
		if err := s.kernel.Away(); err != nil {
			p.params.Log.Error("send new connections direct", "error", err)
		}
	}
	// A connect that was left to us just before is still on its way.
	time.Sleep(lastAccepts)
	for _, s := range seats {
		s.loop.call(func() { s.loop.unseat(s) })
	}
	for _, l := range p.loops {
		l.post(func() {
			for c := range l.clients {
				if c.h2 != nil {
					c.h2.shutdown()
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.params.Drain)
	defer cancel()
	for p.clients() > 0 {
		select {
		case <-p.left:
		case <-ctx.Done():
			p.params.Log.Info("closing connections of clients that said nothing meanwhile", "connections", p.clients())
			return
		}
	}
}

// Back takes an Away back for network namespaces that are attached from now on.
// Those that were away are to be closed by then.
func (p *Proxy) Back() { p.draining.Store(false) }

// Close ends everything at once.
func (p *Proxy) Close() error {
	p.mu.Lock()
	seats := p.seats
	p.seats = make(map[uint64]*seat)
	p.mu.Unlock()
	var errs []error
	for _, s := range seats {
		errs = append(errs, s.close())
	}
	for _, l := range p.loops {
		l.call(func() { l.closing = true })
		<-l.done
	}
	return errors.Join(errs...)
}

// judge counts what a try says of an endpoint, and reports the run of failures
// that it goes on with or ends.
func (p *Proxy) judge(task lb.TaskID, e *route.Endpoint, good bool) {
	if !good {
		p.params.Strike(p.runs.Failed(task, e, time.Now()))
		return
	}
	if s, ended := p.runs.Succeeded(task, e, time.Now()); ended {
		p.params.Strike(s)
	}
}

// departed tells Away that a client has gone.
func (p *Proxy) departed() {
	if p.draining.Load() {
		select {
		case p.left <- struct{}{}:
		default:
		}
	}
}

// clients is how many connections are held.
func (p *Proxy) clients() int {
	n := int64(0)
	for _, l := range p.loops {
		n += l.load.Load()
	}
	return int(n)
}

// least is the loop with the fewest clients.
func (p *Proxy) least() *loop {
	best := p.loops[0]
	for _, l := range p.loops[1:] {
		if l.load.Load() < best.load.Load() {
			best = l
		}
	}
	return best
}
