package proxy

import "time"

// wait pauses until a socket is ready for what is wanted of it, or something
// has set x.stop. Ask only for what was found wanting: readiness that was
// noted before does not wake.
func (x *exchange) wait(client, endpoint uint8) {
	x.c.want = client
	if x.up != nil {
		x.up.want = endpoint
	}
	x.co.pause()
	x.c.want = 0
	if x.up != nil {
		x.up.want = 0
	}
	if x.c.dead && x.stop == stopNone && !x.tunnelled {
		x.stop = stopGone
	}
}

// yield lets the other connections of the loop have their turn.
func (x *exchange) yield() {
	x.l.ready(x.co)
	x.wait(0, 0)
}

// rest waits for a time.
func (x *exchange) rest(d time.Duration) bool {
	x.l.arm(&x.phase, d, x)
	for x.stop == stopNone {
		x.wait(0, 0)
	}
	x.phase.stop()
	if x.stop != stopPhase {
		return false
	}
	x.stop = stopNone
	return true
}

// waitRequest waits for what converse needs to go on. silent says that the
// endpoint's machine has not acknowledged the request for silentAfter.
func (x *exchange) waitRequest(broken bool) (silent bool) {
	client, endpoint := uint8(0), wantIn
	switch {
	case broken:
	case x.sent < len(x.out):
		endpoint |= wantOut
	case !x.body.done || !x.body.empty():
		from, to := x.body.wants()
		client |= from
		endpoint |= to
	}
	if !broken && x.replayable && !x.body.done {
		client |= wantIn
	}
	if broken || x.sent < len(x.out) || !x.body.finished() || !x.replayable || !x.repeatable() {
		x.wait(client, endpoint)
		return false
	}
	x.l.arm(&x.phase, silentAfter, x)
	x.wait(client, endpoint)
	x.phase.stop()
	if x.stop != stopPhase {
		return false
	}
	x.stop = stopNone
	return x.up.silent()
}

// waitRelay waits for either direction to go on, as long as the service lets a
// connection be idle.
func (x *exchange) waitRelay() bool {
	endpoint, client := x.reply.wants()
	if !x.requestThrough() && !x.deaf {
		if x.sent < len(x.out) {
			endpoint |= wantOut
		} else {
			from, to := x.body.wants()
			client |= from
			endpoint |= to
		}
	}
	x.armIdle()
	x.wait(client, endpoint)
	x.phase.stop()
	return x.stop == stopNone
}

func (x *exchange) armIdle() {
	if d := x.c.idleTimeout(); d > 0 {
		x.l.arm(&x.phase, d, x)
	}
}

// expired is called by the loop for the two timers of a request.
func (x *exchange) expired(t *timer) {
	if t == &x.deadline {
		x.watch()
	} else {
		x.halt(stopPhase)
	}
}

// halt ends what the request waits for.
func (x *exchange) halt(why stop) {
	if x.co == nil {
		return
	}
	if x.stop == stopNone {
		x.stop = why
	}
	x.l.ready(x.co)
}
