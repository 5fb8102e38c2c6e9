// Package health probes endpoints: an active check of every endpoint of a
// service that asks for one. It counts results into verdicts and hands on
// each change; what a verdict means for traffic is decided in package plan,
// and passive failures never come here.
package health

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// defaultMaxConcurrent bounds probes in flight: enough for 640 probes/s that
// take 100 ms each, few enough not to be a burden on the node's descriptors,
// or on its threads (a probe from a caller's namespace takes one while it
// connects).
const defaultMaxConcurrent = 64

// localLogEvery is the least time between two log lines on local faults: a
// node out of descriptors has thousands of them.
const localLogEvery = time.Minute

// Params is what a Prober needs from the daemon.
type Params struct {
	Log *slog.Logger

	// Report takes verdicts that changed, those of one moment in one call.
	// It is called by one goroutine and holds no probe up; while it blocks,
	// changes gather, and an endpoint that changed back is left out.
	Report func([]lb.VerdictChange)

	// Caller returns the network namespace of a task that may call services
	// of ns, for checks with lb.FromCaller. nil means that there is none at
	// the moment; a caller in the node's own namespace needs a Handle too.
	// The Handle must stay open while it is being dialled from, at most the
	// check's timeout.
	Caller func(ns lb.NamespaceID) *netns.Handle

	// Task returns the network namespace of the local task of that name, whose
	// endpoints are probed from inside: there no security group drops probes.
	// nil, and how long it must stay open, is as with Caller.
	Task func(name string) *netns.Handle

	// Observe counts a probe that ended with result (one of Results) after
	// d. It is called from many goroutines. nil is allowed.
	Observe func(svc lb.ServiceName, result string, d time.Duration)

	MaxConcurrent int // probes in flight; 0 means 64
}

// Prober checks endpoints. Its methods may be called from any goroutine.
type Prober struct {
	params  Params
	probe   func(context.Context, attempt) outcome
	started time.Time     // zero of all times below: they are monotonic offsets
	wake    chan struct{} // the dispatcher's timer is set too late
	changed chan struct{} // pending is not empty

	mu       sync.Mutex
	services []*plan.Service // as of the last SetTargets
	round    uint32          // counts services updated, to find endpoints that are gone
	targets  map[lb.EndpointID]*target
	sched    scheduler
	armed    time.Duration // when the dispatcher runs next by itself
	pending  []*target     // verdict differs from what was reported

	local       uint64    // probes spoilt by this node
	unlogged    uint64    // of them since localLogged
	localLogged time.Time // when they were last logged
}

// New returns a Prober without targets. It does nothing until Run.
func New(p Params) *Prober {
	if p.MaxConcurrent <= 0 {
		p.MaxConcurrent = defaultMaxConcurrent
	}
	return &Prober{
		params:  p,
		probe:   newProtocols().probe,
		started: time.Now(),
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		targets: make(map[lb.EndpointID]*target),
		sched:   scheduler{limit: p.MaxConcurrent},
		armed:   never,
	}
}

// ProbeStatus is the newest a Prober knows of one endpoint.
type ProbeStatus struct {
	Verdict   lb.Verdict
	Result    string        // of the last probe, one of Results; "" before the first
	Reason    string        // in words: "status 200", "connect: connection refused"
	At        time.Time     // when the last probe ended; zero before the first
	Duration  time.Duration // what the last probe took
	Successes uint32        // in a row; local faults do not end a row
	Failures  uint32        // in a row
}

// Status returns what is known of an endpoint; ok is false when it is not
// being probed.
func (p *Prober) Status(id lb.EndpointID) (s ProbeStatus, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[id]
	if t == nil {
		return ProbeStatus{}, false
	}
	s = ProbeStatus{
		Verdict:   t.verdict,
		Result:    t.result.String(),
		Reason:    t.reason,
		Duration:  t.took,
		Successes: t.successes,
		Failures:  t.failures,
	}
	if t.result != resultNone {
		// Counted back from now, so that a wall clock that was set since
		// then does not make the probe look old.
		s.At = time.Now().Add(t.ended - p.now())
	}
	return s, true
}

// Stats is the state of the probing itself.
type Stats struct {
	Targets  int    // endpoints being probed
	InFlight int    // probes running now
	Late     uint64 // probes begun later than a tenth of their interval after they were due
	Local    uint64 // probes that said nothing because this node was at fault
}

// Stats returns the figures of this moment.
func (p *Prober) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Targets: len(p.targets), InFlight: p.sched.inFlight, Late: p.sched.late, Local: p.local}
}

func (p *Prober) now() time.Duration { return time.Since(p.started) }
