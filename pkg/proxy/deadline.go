package proxy

import (
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
)

// A request that is not answered yet waits for its endpoint or for its client.
// The first may take perRequestTimeout since the last of the request came: a
// long upload is nobody's fault. The second, and a request without such a
// timeout, as long as a connection may be idle.

// overdue says why a request of which nothing has come for quiet has waited too
// long, or when to look again: what it waits for may be another thing by then. 0
// is never. exempt is a request that perRequestTimeout does not bound.
func overdue(h *lb.HTTP, exempt, forClient bool, quiet time.Duration) (why stop, again time.Duration) {
	request := h.RequestTimeout
	if exempt {
		request = 0
	}
	limit, why := request, stopDeadline
	switch {
	case forClient:
		limit, why = h.IdleTimeout, stopClient
	case limit == 0:
		limit = h.IdleTimeout
	}
	if limit > 0 && quiet >= limit {
		return why, 0
	}
	again = h.IdleTimeout
	if request > 0 && (again == 0 || request < again) {
		again = request
	}
	if limit > 0 && quiet > 0 {
		// In steps: timers are kept in a list for each duration.
		step := max(limit/8, 1)
		again = min(again, (limit-quiet+step-1)/step*step)
	}
	return stopNone, again
}

// watch starts the clock of a request, or goes on with it.
func (x *exchange) watch() {
	h := x.route.HTTP
	forClient := x.up != nil && x.sent == len(x.out) && x.body.empty() && !x.body.done
	why, again := overdue(h, x.head.Upgrade, forClient, time.Duration(x.l.now-x.fed))
	if why != stopNone {
		x.halt(why)
	} else if again > 0 {
		x.l.arm(&x.deadline, again, x)
	}
}

// watch is the same for HTTP/2. A call with a deadline of its own is ended by
// its client.
func (q *h2Request) watch() {
	x := q.x
	if x.HasDeadline || x.Answered() {
		return
	}
	quiet := time.Duration(q.l.now - x.Fed)
	switch why, again := overdue(q.route.HTTP, false, x.AwaitsClient(), quiet); {
	case why == stopDeadline:
		q.leave(route.Reset, 0, -1)
		x.Expire()
	case why != stopNone:
		x.Cut()
	case again > 0:
		q.l.arm(&q.deadline, again, q)
	}
}
