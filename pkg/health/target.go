package health

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"connectd/pkg/lb"
)

// noCallerRetry bounds the wait for a calling task, so that the first task
// that calls a service does not wait a whole interval for its endpoints.
const noCallerRetry = time.Second

// freshInterval bounds the interval of a local endpoint that clients do not
// know yet: a deployment waits for it, and nobody else probes it.
const freshInterval = time.Second

// check is a health check as it applies to a service. It is immutable and
// shared by the service's targets, but those of local tasks.
type check struct {
	*lb.HealthCheck
	service   lb.ServiceName
	namespace lb.NamespaceID
	task      string // local task that is probed from inside; "" is none
}

func (c *check) equal(o *check) bool {
	return c.service == o.service && c.namespace == o.namespace && c.task == o.task &&
		(c.HealthCheck == o.HealthCheck || *c.HealthCheck == *o.HealthCheck)
}

// target is one endpoint being probed. There may be 100,000: mind its size.
// id, addr and check never change; a target whose check changes is replaced.
type target struct {
	id    lb.EndpointID
	pos   int32 // index in its queue; meaningless while in flight
	addr  netip.AddrPort
	check *check

	due   time.Duration // when to probe next
	ended time.Duration // when the last probe did
	took  time.Duration // how long the last probe was

	reason    string
	successes uint32 // in a row
	failures  uint32 // in a row
	round     uint32 // of the last SetTargets that listed it
	result    result
	verdict   lb.Verdict
	reported  lb.Verdict

	fresh    bool // of a local task, and no probe has succeeded yet
	slow     bool // the last probe timed out: see scheduler
	inFlight bool
	gone     bool // no longer a target: a result still to come is void
	queued   bool // in Prober.pending
}

// record takes in the outcome of a probe that began at began.
func (t *target) record(o outcome, began, now time.Duration) {
	t.ended, t.took = now, now-began
	t.result = o.result
	if t.reason != o.reason {
		t.reason = o.reason
	}
	t.slow = o.result == resultTimeout
	interval := t.check.Interval
	switch {
	case o.result == resultSuccess:
		t.succeeded()
	case o.result.countsAgainst():
		t.failed()
	}
	switch {
	case o.result == resultNoCaller:
		interval = min(interval, noCallerRetry)
	case t.fresh:
		interval = min(interval, freshInterval)
	}
	t.due = max(began+jitter(interval), now)
}

// succeeded makes the target healthy after HealthyThreshold successes in a
// row, but at once if nothing is known of it: a service that starts waits for
// no more than one probe. What failed while a local task started is not held
// against it.
func (t *target) succeeded() {
	t.failures = 0
	t.successes++
	if t.verdict == lb.VerdictUnknown || t.fresh || t.successes >= t.check.HealthyThreshold {
		t.verdict = lb.VerdictHealthy
	}
	t.fresh = false
}

func (t *target) failed() {
	t.successes = 0
	t.failures++
	if t.failures >= t.check.UnhealthyThreshold {
		t.verdict = lb.VerdictUnhealthy
	}
}

// jitter returns d give or take a tenth, so that probes which began together
// drift apart, on this node and between nodes.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// spread returns an offset in [0, d) for the first probe of id. Multiples of
// the golden ratio fall evenly into any range, so successive ids do too.
func spread(id lb.EndpointID, d time.Duration) time.Duration {
	const golden = 0x9e3779b9 // 2^32 divided by the golden ratio
	return time.Duration(uint64(uint32(id)*golden) * uint64(d) >> 32)
}
