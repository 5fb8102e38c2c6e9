package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/proxy/http1"
	"connectd/pkg/proxy/route"
)

// try sends the request to an endpoint and reads the head of what it answers.
// answered says that there is one, be it a 503.
func (x *exchange) try(e *route.Endpoint) (f route.Failure, answered bool) {
	x.endpoint, x.host, x.server, x.tryBegan, x.sent = e, e.Address, e.Server(), x.l.now, 0
	x.resp, x.respScan = x.resp[:0], 0
	e.InFlight.Add(1)
	x.tries++
	u, f := x.connect(e)
	if u == nil {
		return f, false
	}
	f, answered = x.converse(u)
	if answered && f == route.NoFailure && x.answer.Status == 503 {
		f = route.Unavailable
	}
	return f, answered
}

// connect takes a pooled connection or makes one.
func (x *exchange) connect(e *route.Endpoint) (*upstream, route.Failure) {
	l := x.l
	most := time.Duration(0)
	if !x.repeatable() {
		// An idle connection may be on its way to be closed by the endpoint,
		// and what was sent then cannot be sent again.
		most = freshIdle
	}
	if !x.freed {
		if u := l.pooled(x.c.seat, e, most); u != nil {
			x.take(u)
			x.pooled = true
			return u, route.NoFailure
		}
	}
	x.pooled, x.ours = false, false
	u, err := l.dial(x.c.seat, e)
	if err != nil {
		x.ours = noDescriptor(err)
		return nil, route.ConnectFailed
	}
	x.take(u)
	l.arm(&x.phase, connectTimeout, x)
	for !u.out && x.stop == stopNone {
		x.wait(0, wantOut)
	}
	x.phase.stop()
	switch {
	case x.stop == stopPhase:
		x.stop = stopNone
		err = unix.ETIMEDOUT
	case x.stop != stopNone:
		err = unix.ECANCELED
	default:
		err = soError(u.fd)
	}
	if err != nil {
		x.letGo()
		return nil, route.ConnectFailed
	}
	return u, route.NoFailure
}

// cut is the failure of a connection that ended before any of an answer.
func (x *exchange) cut() route.Failure {
	if x.sent == 0 {
		return route.Unsent
	}
	return route.Reset
}

// busy says whether converse can go on without waiting.
func (x *exchange) busy(u *upstream) bool {
	return u.in || x.sent < len(x.out) && u.out || !x.body.done && x.c.in && (x.replayable || u.out)
}

func (x *exchange) take(u *upstream) {
	x.up, u.x, u.co = u, x, x.co
	x.body.to, x.reply.from = &u.sock, &u.sock
}

// letGo closes the connection to the endpoint.
func (x *exchange) letGo() {
	if x.up != nil {
		x.up.close()
		x.up = nil
	}
}

// converse sends the request, as far as the client has sent it, until the
// endpoint has answered.
func (x *exchange) converse(u *upstream) (f route.Failure, answered bool) {
	broken := false
	for {
		moved := false
		if !broken {
			switch x.push(u) {
			case flowMoved:
				moved = true
			case flowBroken:
				broken = true // it may have answered before it went away
				u.in = true
			case flowCut:
				x.stop = stopGone
				return route.Reset, false
			case flowBad:
				x.stop = stopBad
				return route.Reset, false
			}
		}
		if u.in {
			done, f := x.readHead(u)
			if done || f != route.NoFailure {
				return f, done
			}
			moved = moved || len(x.resp) > 0
		}
		if x.stop != stopNone {
			return x.cut(), false
		}
		if moved && x.busy(u) {
			x.yield()
			continue
		}
		silent := x.waitRequest(broken)
		if silent {
			return x.cut(), false
		}
		if x.stop != stopNone {
			return x.cut(), false
		}
	}
}

// push moves the request on: from the client, and to the endpoint.
func (x *exchange) push(u *upstream) flowResult {
	moved := flowStuck
	if x.sent < len(x.out) && u.out {
		n, res := u.write(x.out[x.sent:], false)
		if res == resultFailed {
			return flowBroken
		}
		x.sent += n
		if n > 0 {
			moved = flowMoved
		}
	}
	if x.body.finished() {
		return moved
	}
	before := x.body.bytes
	res := x.feed()
	if x.body.bytes != before {
		x.fed = x.l.now
	}
	if res == flowStuck {
		return moved
	}
	return res
}

// readHead reads of the answer. done says that its head, the final one, is
// complete and in x.answer.
func (x *exchange) readHead(u *upstream) (done bool, f route.Failure) {
	if cap(x.resp) < mediumBuffer {
		x.resp = x.l.free.grow(x.resp, mediumBuffer)
	}
	if len(x.resp) == cap(x.resp) {
		if len(x.resp) >= maxHead {
			return false, route.Malformed
		}
		x.resp = x.l.free.grow(x.resp, 2*cap(x.resp))
	}
	n, res := u.read(x.resp[len(x.resp):cap(x.resp)])
	switch res {
	case resultAgain:
		return false, route.NoFailure
	case resultOK:
	default:
		if len(x.resp) > 0 {
			return false, route.Malformed
		}
		return false, x.cut()
	}
	x.resp = x.resp[:len(x.resp)+n]
	for {
		size, next := http1.FindEnd(x.resp, x.respScan)
		if size == 0 {
			x.respScan = next
			return false, route.NoFailure
		}
		if err := x.answer.ParseResponse(x.resp[:size]); err != nil {
			return false, route.Malformed
		}
		if !x.answer.Interim() {
			return true, route.NoFailure
		}
		if !x.inform(size) {
			return false, route.Malformed
		}
	}
}
