package ecsapi

import (
	"context"
	"sync"
	"time"
)

// bucket hands out tokens, one for each call.
type bucket struct {
	rate  float64 // tokens that come back in a second
	burst float64 // tokens that it holds

	mu     sync.Mutex
	tokens float64 // negative: that many wait
	at     time.Time
}

func newBucket(rate, burst float64) *bucket {
	return &bucket{rate: rate, burst: burst, tokens: burst, at: time.Now()}
}

// wait takes a token, or waits for one until ctx ends.
func (b *bucket) wait(ctx context.Context) error {
	b.mu.Lock()
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	b.tokens--
	missing := -b.tokens
	b.mu.Unlock()
	if missing <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(time.Duration(missing / b.rate * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		b.mu.Lock()
		b.tokens++ // for whoever comes next
		b.mu.Unlock()
		return ctx.Err()
	}
}
