package cloudwatch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
)

// API is what a Publisher calls. See Dial.
type API interface {
	PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error)
}

// Params say what to publish where.
type Params struct {
	API       API
	Namespace string        // see CheckNamespace
	Period    time.Duration // at least callTime; Service Connect's is a minute
	Metrics   Selection
	Bounds    []float64 // upper bounds of Called.Time, seconds, without +Inf, ascending
	// Read takes a reading. It is called once a period, at start and at the end.
	Read func() Snapshot
	Log  *slog.Logger // nil discards
}

// Stats is what a Publisher counts of itself since start.
type Stats struct {
	Calls       uint64    // PutMetricData
	Errors      uint64    // calls that failed, those tried again later included
	Sent        uint64    // data that CloudWatch took
	Full        uint64    // data dropped because the queue was full
	Old         uint64    // data dropped because CloudWatch takes none so old
	Refused     uint64    // data dropped because CloudWatch refused them
	Invalid     uint64    // rows left out because of their names
	Queued      int       // data that wait now
	LastSuccess time.Time // of a call; zero is never
	LastError   string    // of the newest call; "" when it succeeded
}

// Publisher sends a reading each period.
type Publisher struct {
	p      Params
	random func(time.Duration) time.Duration // from 0 to below its argument

	// Of Run alone.
	ledger ledger
	active map[series]bool // gauges that were not 0 in the period before
	queue  queue
	limit  int           // data of a call
	wait   time.Duration // the last one after an error; 0: none has been

	mu    sync.Mutex
	stats Stats
}

// New returns a Publisher, which does nothing before Run.
func New(p Params) *Publisher {
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{p: p, random: rand.N[time.Duration], ledger: ledger{marks: make(map[rowKey]*mark)}, limit: maxData}
}

// Stats may be called at any time.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Run publishes until ctx ends, then once more, lastTime at most, and returns
// nil. What was counted before it began is not sent. It begins at a random
// moment of a period, so that the nodes of a fleet do not all call at once.
func (p *Publisher) Run(ctx context.Context) error {
	p.count(p.p.Read(), time.Now())
	p.ledger.began = true
	tick := time.Now().Add(p.random(p.p.Period))
	retry := tick
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := tick
		if len(p.queue.data) > 0 && retry.Before(tick) {
			next = retry
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			p.finish(ctx)
			return nil
		case <-timer.C:
		}
		if now := time.Now(); !now.Before(tick) {
			late := now.Sub(tick)
			p.collect(now.Add(-late)) // evenly, or one minute gets two and the next none
			tick = tick.Add(late.Truncate(p.p.Period) + p.p.Period)
		}
		if len(p.queue.data) > 0 && !time.Now().Before(retry) {
			retry = time.Now().Add(p.send(ctx))
		}
	}
}

// collect queues what was counted up to at.
func (p *Publisher) collect(at time.Time) {
	sum := p.count(p.p.Read(), at)
	for s := range p.active {
		if sum.totals[s] == nil { // once, or the last value seems to stay
			sum.totals[s] = new(total)
		}
	}
	p.active = make(map[series]bool)
	for s, t := range sum.totals {
		if s.metric == activeConnectionCount && t.value > 0 {
			p.active[s] = true
		}
	}
	p.ledger.forget(at)
	p.queue.push(sum.data(p.p.Bounds, at.Round(0).UTC()))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue.full > 0 && p.stats.Full == 0 {
		p.p.Log.Warn("dropping the oldest CloudWatch data, for too many wait", "max", maxQueued)
	}
	p.stats.Invalid += sum.invalid
	p.note()
}

// count settles a reading.
func (p *Publisher) count(s Snapshot, at time.Time) *period {
	out := &period{selection: p.p.Metrics, totals: make(map[series]*total)}
	for i := range s.Served {
		out.served(&p.ledger, &s.Served[i], at)
	}
	for i := range s.Called {
		out.called(&p.ledger, &s.Called[i], len(p.p.Bounds)+1, at)
	}
	return out
}

// note copies what the queue counts. The caller holds mu.
func (p *Publisher) note() {
	p.stats.Full, p.stats.Old, p.stats.Queued = p.queue.full, p.queue.old, len(p.queue.data)
}
