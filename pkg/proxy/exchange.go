package proxy

import (
	"net/netip"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/proxy/http1"
	"connectd/pkg/proxy/route"
)

// exchange is one HTTP/1 request and its response, over all its tries. It is
// straight-line code in a coroutine: serve, forward, try, relay.
type exchange struct {
	l  *loop
	co *coro
	c  *client

	// What the client sent: the head, then what came with it. The spans of
	// head are in req, so req stays as it is until the request was accounted.
	req     []byte
	size    int // of the head
	scanned int // how far the head's end was looked for
	after   int // where the next request begins in req
	head    http1.Message
	first   bool // of its connection
	slow    bool // its head took too long

	// What the endpoint gets: the head rebuilt and, as long as it can be sent
	// again, the body so far.
	out        []byte
	headLen    int        // of the head in out
	forwarded  http1.Span // X-Forwarded-For in it
	sent       int        // of out, to the present endpoint
	replayable bool
	grown      int // of the memory for replay in all, held by this one
	up         *upstream
	body       flow // of the request, from the client

	// What the endpoint answered and what the client gets of it.
	resp      []byte
	respScan  int
	answer    http1.Message
	reply     flow
	committed bool // something of a response was sent to the client
	keep      bool // the client's connection lives on
	informed  int  // 1xx answers passed on
	stale     bool // the endpoint said more than it should have
	deaf      bool // the endpoint takes nothing any more
	tunnelled bool
	ours      bool // the latest failure was not the endpoint's

	route    *route.Route
	task     *plan.Task
	choice   route.Choice
	tries    uint8
	retries  uint8
	pooled   bool            // the present connection had been used before
	freed    bool            // a try was on a connection that died in its pool; the others are on new ones
	endpoint *route.Endpoint // of the present try
	host     netip.AddrPort  // of the latest try
	server   *route.Server   // the same
	tryBegan int64
	headAt   int64 // when the response head came

	start    int64    // when the head was whole
	fed      int64    // when something of the request came last
	id       [36]byte // request id, when the client gave none; zero before prepare
	deadline timer
	phase    timer // connect, retry delay, idleness
	stop     stop
	status   int
	reason   string // why connectd itself answered
}

// stop is why a wait ended that nothing came for.
type stop uint8

const (
	stopNone     stop = iota
	stopGone          // the client's connection is dead
	stopDeadline      // the endpoint took too long
	stopClient        // the client took too long
	stopPhase         // the present phase did
	stopEndpoint      // connections to the endpoint are being ended
	stopBad           // the client's body is not framed as it said
	stopClosing       // the daemon or the task is going
)

func (l *loop) newExchange(c *client) *exchange {
	var x *exchange
	if n := len(l.exchanges); n > 0 {
		x = l.exchanges[n-1]
		l.exchanges = l.exchanges[:n-1]
	} else {
		x = &exchange{l: l}
		x.choice.Rand = l.rand
	}
	x.c = c
	x.first = c.requests == 0
	if cap(x.req) == 0 {
		x.req = l.free.get(smallBuffer)
	}
	return x
}

// recycle gives back an exchange whose request, if there was one, is over.
func (l *loop) recycle(x *exchange) {
	x.reset()
	x.c, x.co = nil, nil
	if len(l.exchanges) < maxSpare {
		if cap(x.req) > smallBuffer {
			l.free.put(x.req)
			x.req = nil
		}
		x.req = x.req[:0]
		l.exchanges = append(l.exchanges, x)
		return
	}
	l.free.put(x.req)
	l.free.put(x.out)
	l.free.put(x.resp)
	*x = exchange{}
}

// reset makes an exchange ready for the next request on its connection. What
// came beyond this one stays.
func (x *exchange) reset() {
	l := x.l
	x.deadline.stop()
	x.phase.stop()
	if x.up != nil {
		x.up.close()
		x.up = nil
	}
	rest := copy(x.req, x.req[min(x.after, len(x.req)):])
	x.req = x.req[:rest]
	if over := x.body.over; len(over) > 0 {
		x.req = append(l.free.grow(x.req, rest+len(over)), over...)
	}
	l.drain(&x.body)
	l.drain(&x.reply)
	l.p.replay.Add(int64(-x.grown))
	x.grown = 0
	x.out = l.shrink(x.out)
	x.resp = l.shrink(x.resp)
	x.size, x.scanned, x.after, x.sent, x.respScan = 0, 0, 0, 0, 0
	x.first, x.slow, x.replayable, x.committed, x.keep = false, false, false, false, false
	x.stale, x.deaf, x.tunnelled, x.pooled, x.freed, x.ours = false, false, false, false, false, false
	x.head.Size, x.headLen, x.retries = 0, 0, 0
	x.host = netip.AddrPort{}
	x.route, x.task, x.endpoint, x.server = nil, nil, nil, nil
	x.tries, x.informed, x.status, x.reason, x.stop = 0, 0, 0, "", stopNone
	x.headAt, x.id, x.forwarded = 0, [36]byte{}, http1.Span{}
	clear(x.choice.Tried)
	x.choice.Tried = x.choice.Tried[:0]
}

// ending is what becomes of the client's connection.
type ending uint8

const (
	endKeep   ending = iota
	endClose         // everything was said
	endLinger        // the client may still be sending
	endReset         // what was said is incomplete
)

// run serves requests until none is whole.
func (x *exchange) run(co *coro) {
	c := x.c
	x.co, c.co = co, co
	c.timer.stop()
	for {
		end := x.serve()
		x.account(end)
		if end != endKeep {
			c.co = nil
			c.finish(end)
			return
		}
		x.reset()
		c.requests++
		if !x.next() {
			break
		}
	}
	c.co, x.co = nil, nil
	switch {
	case c.dead || c.fin && !c.in:
		c.close()
	case len(x.req) == 0:
		c.rest()
	default:
		c.l.arm(&c.timer, headTimeout, c)
	}
}

// next reads on until the head of another request is whole. false leaves the
// connection to its events.
func (x *exchange) next() bool {
	for {
		if len(x.req) > 0 {
			size, next := http1.FindEnd(x.req, x.scanned)
			if size == 0 && len(x.req) >= maxHead {
				size = tooLarge
			}
			if size > 0 {
				x.size = size
				return true
			}
			x.scanned = next
		}
		if !x.c.in {
			return false
		}
		if len(x.req) == cap(x.req) {
			x.req = x.l.free.grow(x.req, 2*cap(x.req))
		}
		n, res := x.c.read(x.req[len(x.req):cap(x.req)])
		if res != resultOK {
			return false
		}
		x.req = x.req[:len(x.req)+n]
	}
}

// serve answers one request.
func (x *exchange) serve() ending {
	l := x.l
	x.start, x.fed = l.now, l.now
	x.route = l.p.table.Route(x.c.vip)
	x.task = l.p.table.Task(x.c.task)
	if end, ok := x.read(); !ok {
		return end
	}
	switch {
	case l.p.asksReady(x.c.vip):
		return x.tellReady()
	case x.route == nil:
		return x.refuse(503, reasonNoService)
	case x.task == nil || !route.Allows(x.task, x.route):
		return x.refuse(403, reasonOutOfScope)
	case x.route.HTTP.Protocol != lb.AppHTTP:
		return x.refuse(505, reasonNeedsHTTP2)
	}
	x.choice.Task, x.choice.V6 = x.task, x.c.vip.Addr().Is6()
	x.watch()
	if !x.prepare() {
		return x.refuse(400, reasonBodyFraming)
	}
	x.route.State.Budget.Deposit(x.route.HTTP.Retry, l.now)
	return x.forward()
}

// forward tries endpoints until one answers.
func (x *exchange) forward() ending {
	for {
		e, fresh := x.route.Choose(&x.choice)
		if e == nil {
			return x.refuse(503, reasonNoEndpoint)
		}
		if !fresh && !x.rest(sameEndpointDelay) {
			return x.stopped()
		}
		failure, answered := x.try(e)
		if answered && failure == route.NoFailure {
			return x.relay()
		}
		if x.stop != stopNone && x.stop != stopEndpoint {
			return x.stopped()
		}
		x.stop = stopNone
		verdict := x.decide(failure)
		if verdict != route.Again && verdict != route.AgainFree {
			if answered {
				return x.relay()
			}
			return x.failed(failure)
		}
		x.again(e, failure, verdict, answered)
	}
}

// abandon closes what a request that panicked has open.
func (x *exchange) abandon() {
	c := x.c
	x.letGo()
	x.deadline.stop()
	x.phase.stop()
	if x.endpoint != nil {
		x.endpoint.InFlight.Add(-1)
	}
	c.x, c.co = nil, nil // its state is not to be trusted
	c.end(true)
}

// drain gives back what a flow holds.
func (l *loop) drain(f *flow) {
	if cap(f.held) > 0 {
		l.letGo(f)
	}
	l.free.put(f.over)
	*f = flow{}
}

// shrink keeps a buffer of usual size for the next request.
func (l *loop) shrink(b []byte) []byte {
	if cap(b) <= mediumBuffer {
		return b[:0]
	}
	l.free.put(b)
	return nil
}
