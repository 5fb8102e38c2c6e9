package health

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// grain is the least time between two runs of the timer. Probes that come due
// within it begin together: 10,000 endpoints every 10 s wake the daemon 200
// times a second, not 1,000 times.
const grain = 5 * time.Millisecond

// attempt is what one probe needs to know.
type attempt struct {
	*lb.HealthCheck
	from *netns.Handle
	addr netip.AddrPort
}

// Run probes until ctx ends, then waits for every goroutine it started and
// returns nil. Results that come in after ctx ended are void. Call it once.
func (p *Prober) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { p.report(ctx) })
	p.dispatch(ctx, &wg)
	wg.Wait()
	return nil
}

// dispatch starts a worker for each target that comes due while a slot is
// free. One timer serves all targets.
func (p *Prober) dispatch(ctx context.Context, wg *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		p.mu.Lock()
		now := p.now()
		for t := p.sched.take(now); t != nil; t = p.sched.take(now) {
			wg.Go(func() { p.work(ctx, t) })
		}
		p.armed = p.sched.next()
		if p.armed == never {
			timer.Stop()
		} else {
			timer.Reset(max(p.armed-now, grain))
		}
		p.mu.Unlock()
	}
}

// poke wakes the dispatcher if it would sleep too long. p.mu is held.
func (p *Prober) poke() {
	next := p.sched.next()
	if next >= p.armed {
		return
	}
	p.armed = next
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// work probes t, and then whatever is due by then: under load a slot passes
// from target to target without the dispatcher.
func (p *Prober) work(ctx context.Context, t *target) {
	for t != nil {
		began := p.now()
		o := p.attempt(ctx, t)
		t = p.finish(ctx, t, began, o)
	}
}

func (p *Prober) attempt(ctx context.Context, t *target) outcome {
	a := attempt{HealthCheck: t.check.HealthCheck, addr: t.addr}
	if o := p.place(t, &a); o.result != resultNone {
		return o
	}
	began := p.now()
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	o := p.probe(ctx, a)
	if took := p.now() - began; o.result == resultTimeout && took > a.Timeout+a.Timeout/2 {
		// Timers fire within milliseconds of their time. A daemon that was
		// stopped or starved would else find everything dead at once.
		o = outcome{resultLocal, "this node stalled during the probe"}
	}
	return o
}

// place finds where a probe is to be made from, or says why there is no such
// place. A local task is probed from inside if the address is its own; that of
// one in bridge mode is the node's, and leads back there from anywhere.
func (p *Prober) place(t *target, a *attempt) (o outcome) {
	switch {
	case t.check.task != "":
		var inside *netns.Handle
		if p.params.Task != nil {
			inside = p.params.Task(t.check.task)
		}
		if inside == nil {
			return outcome{resultNoCaller, "not probed: the namespace of its task is not open yet"}
		}
		owned, err := owns(inside, t.addr.Addr())
		if err != nil {
			return outcome{resultLocal, short(err.Error())}
		}
		if owned {
			a.from = inside
		}
	case a.From == lb.FromCaller:
		if p.params.Caller != nil {
			a.from = p.params.Caller(t.check.namespace)
		}
		if a.from == nil {
			return outcome{resultNoCaller, "not probed: no calling task on this node"}
		}
	}
	return o
}

// finish takes in what became of t and returns the target to probe next, nil
// when the worker is to end.
func (p *Prober) finish(ctx context.Context, t *target, began time.Duration, o outcome) *target {
	now := p.now()
	stopped := ctx.Err() != nil
	if !stopped {
		p.observe(t, o, now-began)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sched.done(t)
	if !t.gone {
		if !stopped {
			t.record(o, began, now)
			p.notify(t)
		}
		p.sched.add(t)
	}
	if stopped {
		return nil
	}
	next := p.sched.take(now)
	p.poke()
	return next
}

// observe counts a result, and logs a fault of this node once a minute.
func (p *Prober) observe(t *target, o outcome, took time.Duration) {
	if p.params.Observe != nil {
		p.params.Observe(t.check.service, o.result.String(), took)
	}
	if o.result != resultLocal {
		return
	}
	p.mu.Lock()
	p.local++
	p.unlogged++
	probes, due := p.unlogged, time.Since(p.localLogged) >= localLogEvery
	if due {
		p.localLogged, p.unlogged = time.Now(), 0
	}
	p.mu.Unlock()
	if due {
		p.params.Log.Warn("probe endpoint: fault on this node, verdict left as it was", "reason", o.reason,
			"service", t.check.service.String(), "endpoint", t.addr.String(), "probes", probes)
	}
}

// notify marks a verdict for report if it is news. p.mu is held.
func (p *Prober) notify(t *target) {
	if t.verdict == t.reported || t.queued {
		return
	}
	t.queued = true
	p.pending = append(p.pending, t)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *Prober) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		}
		if changes := p.takePending(); len(changes) > 0 {
			p.params.Report(changes)
		}
	}
}

func (p *Prober) takePending() []lb.VerdictChange {
	p.mu.Lock()
	defer p.mu.Unlock()
	changes := make([]lb.VerdictChange, 0, len(p.pending))
	for _, t := range p.pending {
		t.queued = false
		if t.gone || t.verdict == t.reported {
			continue
		}
		t.reported = t.verdict
		changes = append(changes, lb.VerdictChange{Endpoint: t.id, Verdict: t.verdict, Reason: t.reason})
	}
	p.pending = nil
	return changes
}
