package route

import (
	"sync/atomic"

	"connectd/pkg/lb"
)

// Budget bounds how many requests of a service are tried again: a share of all
// of them, and in any case a few a second. It is a bucket that every request
// and every second put a little into, and every retry takes one out of; so
// retries cannot multiply the load of a service that is failing under it.
// (Finagle's RetryBudget, and linkerd's, with the same constants.)
type Budget struct {
	held atomic.Int64 // thousandths of a retry
	last atomic.Int64 // when time was last counted, nanoseconds and one
}

const (
	one           = 1000
	budgetSeconds = 10 // of deposits that can be saved up
	second        = int64(1e9)
)

// Deposit is called for each request.
func (b *Budget) Deposit(r lb.Retry, now int64) {
	b.refill(r, now)
	share := int64(r.BudgetPercent) * one / 100
	// Ten seconds of many requests would still allow a storm: a thousand retries
	// are more than a node that is well needs.
	if share > 0 && b.held.Load() < 1000*one {
		b.held.Add(share)
	}
}

// Take takes one retry out, if it is there.
func (b *Budget) Take(r lb.Retry, now int64) bool {
	b.refill(r, now)
	if b.held.Add(-one) >= 0 {
		return true
	}
	b.held.Add(one)
	return false
}

// refill does what time does: the seconds put in what they are worth, up to ten
// of them, and what requests have put in beyond that fades over ten seconds. So
// hours of requests without a retry allow no more of them than ten seconds do.
// A budget begins full.
func (b *Budget) refill(r lb.Retry, now int64) {
	now++ // of last, 0 is a budget that has not begun
	last := b.last.Load()
	if now-last < second/100 && last != 0 {
		return
	}
	if !b.last.CompareAndSwap(last, now) {
		return // another goroutine does
	}
	past := budgetSeconds * second
	if last != 0 {
		past = min(past, now-last)
	}
	full := int64(r.BudgetFloor) * one * budgetSeconds
	held := b.held.Load()
	if held < full {
		b.held.Add(min(full*past/(budgetSeconds*second), full-held))
	} else {
		b.held.Add(-(held - full) * past / (budgetSeconds * second))
	}
}
