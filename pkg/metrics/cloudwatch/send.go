package cloudwatch

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
)

const (
	// callTime is what one call may take: a megabyte over a bad link.
	callTime = 10 * time.Second
	// lastTime is what sending the rest may take at the end: a stop waits for it.
	lastTime = 2 * time.Second
	// The wait after an error doubles from firstWait to maxWait. A throttle of
	// the account is over within seconds.
	firstWait = time.Second
	maxWait   = time.Minute
)

// finish sends what is left.
func (p *Publisher) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	p.collect(time.Now())
	for len(p.queue.data) > 0 && p.send(ctx) == 0 {
	}
	if n := len(p.queue.data); n > 0 {
		p.p.Log.Warn("stopping with CloudWatch data that were not sent", "data", n)
	}
}

// send makes one call and returns how long to wait before the next.
func (p *Publisher) send(ctx context.Context) time.Duration {
	p.queue.expire(time.Now())
	batch := slices.Clone(p.queue.batch(p.limit)) // the queue clears its own
	var err error
	if len(batch) > 0 {
		call, cancel := context.WithTimeout(ctx, callTime)
		_, err = p.p.API.PutMetricData(call, &cloudwatch.PutMetricDataInput{Namespace: &p.p.Namespace, MetricData: batch})
		cancel()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.note()
	if len(batch) == 0 {
		return 0
	}
	p.stats.Calls++
	if err != nil {
		return p.fail(len(batch), err)
	}
	p.succeed(len(batch))
	return 0
}

// succeed books n data that were taken. The caller holds mu.
func (p *Publisher) succeed(n int) {
	p.queue.drop(n)
	if p.wait > 0 {
		p.p.Log.Info("sending CloudWatch data again", "queued", len(p.queue.data))
	}
	p.wait, p.limit = 0, maxData
	p.stats.Sent += uint64(n)
	p.stats.LastSuccess, p.stats.LastError = time.Now(), ""
}

// fail books an error over n data and returns how long to wait. The caller
// holds mu.
func (p *Publisher) fail(n int, err error) time.Duration {
	p.stats.Errors++
	p.stats.LastError = err.Error()
	switch verdict := judge(err); {
	case verdict == tooLarge && n > 1:
		p.limit = n / 2
		return 0
	case verdict != later:
		p.p.Log.Error("dropping data that CloudWatch refused", "data", n, "error", err)
		p.queue.drop(n)
		p.limit = maxData
		p.stats.Refused += uint64(n)
		return 0
	}
	if p.wait == 0 {
		p.wait = firstWait
		p.p.Log.Error("put CloudWatch data, keeping what is queued", "error", err)
	} else {
		p.wait = min(2*p.wait, maxWait)
	}
	return p.wait/2 + p.random(p.wait/2)
}
