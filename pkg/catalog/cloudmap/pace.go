package cloudmap

import (
	"math/rand/v2"
	"time"
)

const (
	// burst is how many calls a node may save up: what a node with 100 tasks
	// needs to register them all, their services included, to see that they
	// are registered, and to read what they call.
	burst = 200
	// debt is how far the most urgent calls may overdraw the bucket. More
	// would keep the node from seeing changes for minutes.
	debt = 20
	// reserve is what reading leaves in the bucket for registrations, and
	// polls for first reads.
	reserve = 4
	// fleetRate bounds what all nodes together call, in calls a second: well
	// below the 1,000 DiscoverInstances that an account may make, so that a
	// fleet too large for its configured budget slows down instead of being
	// throttled.
	fleetRate = 600
	// fleetBurst bounds the same way what all nodes may have saved up for
	// reading what has changed: after a deployment of everything, all of them
	// would spend it within a minute. A node has readsLeast at least. What local
	// tasks serve is registered from the node's own savings all the same.
	fleetBurst = 30_000
	readsLeast = 4

	backoffLeast = time.Second
	backoffMost  = time.Minute
	// backoffDenied is for what IAM refuses: it does not get well by itself.
	backoffDenied = 5 * time.Minute
)

// bucket is a token bucket on a clock that the caller has.
type bucket struct {
	tokens, rate float64 // rate in tokens a second
	most         float64 // tokens that it holds
	at           time.Time
}

func (b *bucket) advance(now time.Time) {
	b.tokens += max(0, now.Sub(b.at).Seconds()) * b.rate
	b.tokens = min(b.most, b.tokens)
	b.at = now
}

// ready returns when there will be need tokens; now if there are.
func (b *bucket) ready(now time.Time, need float64) time.Time {
	if b.tokens >= need {
		return now
	}
	return now.Add(time.Duration((need-b.tokens)/b.rate*float64(time.Second)) + time.Millisecond)
}

// retry is how often something failed in a row, and when it may be tried again.
type retry struct {
	failures int
	until    time.Time
}

// fail notes a failure: the pause doubles, with jitter so that nodes that
// failed together do not come back together.
func (r *retry) fail(now time.Time, random *rand.Rand, least, most time.Duration) {
	pause := least << min(r.failures, 20)
	if pause > most || pause <= 0 {
		pause = most
	}
	r.failures++
	r.until = now.Add(jitter(random, pause))
}

// jitter returns d times 0.75 to 1.25.
func jitter(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + random.Float64()/2))
}
