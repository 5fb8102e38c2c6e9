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
	last atomic.Int64 // when the seconds were last put in, nanoseconds
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
	if share == 0 {
		return
	}
	// Bounded, so that hours without a retry do not allow a storm of them. How
	// much 10 seconds of requests put in is not known here: a thousand retries
	// are more than a node that is well needs.
	if b.held.Load() < 1000*one {
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

// refill puts in what the seconds since the last time are worth, at most ten of
// them. It begins full.
func (b *Budget) refill(r lb.Retry, now int64) {
	floor := int64(r.BudgetFloor) * one
	last := b.last.Load()
	if floor == 0 || now-last < second/100 && last != 0 {
		return
	}
	if !b.last.CompareAndSwap(last, now) {
		return // another goroutine does
	}
	due := floor * budgetSeconds
	if last != 0 && now-last < budgetSeconds*second {
		due = floor * (now - last) / second
	}
	if held := b.held.Load(); held < floor*budgetSeconds {
		b.held.Add(min(due, floor*budgetSeconds-held))
	}
}
