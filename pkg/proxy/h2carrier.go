package proxy

import (
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/proxy/h2"
	"connectd/pkg/proxy/http1"
	"connectd/pkg/proxy/route"
)

// h2Request is what the loop knows of one HTTP/2 request, over all its tries.
type h2Request struct {
	l        *loop
	x        *h2.Exchange
	c        *client
	route    *route.Route
	task     *plan.Task
	choice   route.Choice
	retries  uint8
	tries    uint8
	up       *h2Upstream // of the present try
	dialing  *h2Upstream // that it waits for
	endpoint *route.Endpoint
	host     *route.Endpoint // of the latest try
	pooled   bool
	freed    bool  // a try was on a connection that had died in its pool
	moves    uint8 // how often a connection had no room for it after all
	ours     bool  // the latest failure was not the endpoint's
	start    int64
	tryBegan int64
	deadline timer
	pause    timer // before the same endpoint is tried again
	paused   bool
	idle     timer
}

// newH2Request begins the account of a request that has come.
func (c *client) newH2Request(x *h2.Exchange) *h2Request {
	l := c.l
	q := &h2Request{l: l, x: x, c: c, start: l.now}
	x.User = q
	c.timer.stop()
	c.requests++
	q.route, q.task = l.p.table.Route(c.vip), l.p.table.Task(c.task)
	return q
}

// Request implements h2.Carrier.
func (l *loop) Request(x *h2.Exchange) (from h2.Origin, refuse int) {
	c := x.Client().Session().User.(*h2Conn).owner.(*h2Client).c
	q := c.newH2Request(x)
	if q.route != nil && (q.route.Former || q.route.HTTP.Protocol == lb.AppHTTP) {
		c.h2.shutdown() // what it connects to anew is not this
	}
	switch {
	case q.route == nil:
		x.Reason = reasonNoService
		return from, 503
	case q.task == nil || !route.Allows(q.task, q.route):
		x.Reason = reasonOutOfScope
		return from, 403
	}
	q.choice = route.Choice{Task: q.task, V6: c.vip.Addr().Is6(), Rand: l.rand}
	q.route.State.Budget.Deposit(q.route.HTTP.Retry, l.now)
	q.watch()
	var id [36]byte
	l.newID(&id)
	return h2.Origin{For: string(c.seat.source(q.route, q.choice.V6)), Proto: "http", RequestID: string(id[:])}, 0
}

// refused counts and logs a request that the session itself has answered, and of
// which no more is known.
func (h *h2Client) refused(status int, reason string) {
	x := &h2.Exchange{Status: status, GRPCStatus: -1, Reason: reason}
	h.c.newH2Request(x)
	h.l.Done(x)
}

// Dial implements h2.Carrier.
func (l *loop) Dial(x *h2.Exchange) {
	q := x.User.(*h2Request)
	if q.tries > 0 {
		q.route, q.task = l.p.table.Renew(q.c.vip, q.route, q.task)
		q.choice.Task = q.task
	}
	e, fresh := q.route.Choose(&q.choice)
	if e == nil {
		x.Reason = reasonNoEndpoint
		x.Failed(h2.ConnectFailed)
		return
	}
	q.endpoint, q.host, q.tryBegan = e, e, l.now
	e.InFlight.Add(1)
	q.tries++
	if !fresh {
		q.paused = true
		l.arm(&q.pause, sameEndpointDelay, q)
		return
	}
	q.connect()
}

func (q *h2Request) connect() {
	q.ours = false
	q.elsewhere()
}

// elsewhere finds a connection to the endpoint that takes the request.
func (q *h2Request) elsewhere() {
	u, err := q.l.h2Session(q.c.seat, q.endpoint)
	if err != nil {
		if q.ours = noDescriptor(err); q.ours {
			q.x.Reason = reasonNoDescriptor
		}
		q.x.Failed(h2.ConnectFailed)
		return
	}
	q.up, q.pooled = u, !u.dialing && u.session.Greeted()
	if u.dialing || u.session.Room() == 0 {
		u.waiting = append(u.waiting, q)
		q.dialing = u
		return
	}
	u.timer.stop()
	q.x.Connected(u.session)
}

// Abandon implements h2.Carrier.
func (l *loop) Abandon(x *h2.Exchange) {
	q := x.User.(*h2Request)
	if q.dialing != nil {
		q.dialing.forget(q)
	}
	q.dialing, q.paused = nil, false
}

// Judge implements h2.Carrier.
func (l *loop) Judge(x *h2.Exchange, f h2.Failure) bool {
	q := x.User.(*h2Request)
	e, failure := q.endpoint, failures[f]
	if e == nil { // there was none to try
		return false
	}
	if f == h2.RefusedStream && x.Replayable() && q.moves < maxMoves && q.up.full() {
		q.moves++
		q.anew(e)
		return true
	}
	v := q.route.State.Decide(q.route.HTTP.Retry, route.Try{
		Failure: failure, Idempotent: http1.ParseMethod([]byte(x.Method)).Idempotent(), Replayable: x.Replayable(),
		ResponseStarted: x.Answered(), Tries: q.tries, Pooled: q.pooled && q.died(failure), Freed: q.freed,
	}, l.now)
	if v == route.AgainFree {
		q.freed = true
		q.anew(e)
		return true
	}
	status, grpc := f.Answer()
	if v != route.Again && status != 0 {
		return false // the client gets this answer, and the try ends with it
	}
	q.leave(failure, status, grpc)
	if v != route.Again {
		return false
	}
	q.retries++
	q.choice.Tried = append(q.choice.Tried, e)
	return true
}

// died says that a try failed with its connection, and not with its stream
// alone: that one was reset by an endpoint that had seen the request.
func (q *h2Request) died(f route.Failure) bool { return f != route.Reset || q.up == nil || q.up.over }

// anew takes a try back: the endpoint did nothing wrong.
func (q *h2Request) anew(e *route.Endpoint) {
	q.tries--
	q.endpoint = nil
	e.InFlight.Add(-1)
	q.release()
}

var failures = [...]route.Failure{
	h2.ConnectFailed:   route.ConnectFailed,
	h2.Unsent:          route.Unsent,
	h2.RefusedStream:   route.RefusedStream,
	h2.Reset:           route.Reset,
	h2.Unavailable:     route.Unavailable,
	h2.GRPCUnavailable: route.GRPCUnavailable,
	h2.Malformed:       route.Malformed,
}

// leave is the end of a try; status 0 is no answer, grpc below 0 no call's.
func (q *h2Request) leave(f route.Failure, status, grpc int) {
	e := q.endpoint
	if e == nil {
		return
	}
	q.endpoint = nil
	e.InFlight.Add(-1)
	took := time.Duration(q.l.clock() - q.tryBegan)
	e.Counters.Done(status, grpc, took, q.x.Received, q.x.Sent)
	q.route.State.Caller(q.task).Done(status, -1, took, 0, 0)
	switch {
	case f == route.RefusedStream || f == route.Unsent || q.ours:
	case f != route.NoFailure || status >= 500 || grpc == h2.CallUnavailable:
		q.l.p.judge(q.task.ID, e, false)
	case status != 0:
		q.l.p.judge(q.task.ID, e, true)
	}
	q.release()
}

func (q *h2Request) release() {
	if q.up != nil {
		q.up.released()
		q.up = nil
	}
}

// Done implements h2.Carrier.
func (l *loop) Done(x *h2.Exchange) {
	q := x.User.(*h2Request)
	q.deadline.stop()
	q.pause.stop()
	q.idle.stop()
	failure := route.NoFailure
	if x.Broken { // with an answer, as in relay
		failure = route.Reset
		q.ours = q.up != nil && q.up.hungUp
		q.route.State.BrokeOff()
	}
	q.leave(failure, x.Status, x.GRPCStatus)
	q.c.armH2()
	if x.Reason != "" {
		l.p.refused(x.Reason)
	}
	if q.route == nil {
		return
	}
	s := q.route.State
	took := time.Duration(l.clock() - q.start)
	s.Counters.Done(x.Status, x.GRPCStatus, took, x.Received, x.Sent)
	var server *route.Server
	if q.host != nil {
		server = q.host.Server()
	}
	s.Ended(q.task, server, x.Received, x.Sent)
	if x.Reason == reasonTimeout {
		s.Timeouts.Add(1)
	}
	if q.retries > 0 {
		s.Retried(x.Status != 0 && x.Status < 500 && x.GRPCStatus != h2.CallUnavailable)
	}
	if q.route.HTTP.AccessLog.Path != "" && l.p.params.Access != nil {
		q.log(took)
	}
}

// dialed is told that the connection stands for which the request waits.
func (q *h2Request) dialed(u *h2Upstream) {
	defer q.c.h2.survive()
	q.dialing = nil
	q.x.Connected(u.session)
}

// undialed is told that it does not.
func (q *h2Request) undialed(why h2.Failure) {
	defer q.c.h2.survive()
	q.dialing = nil
	q.x.Failed(why)
}

// redial is told that the connection takes no more.
func (q *h2Request) redial() {
	defer q.c.h2.survive()
	q.dialing = nil
	q.moves++
	q.elsewhere()
}

// expired of a request's timers.
func (q *h2Request) expired(t *timer) {
	defer q.c.h2.survive()
	switch {
	case t == &q.deadline:
		q.watch()
	case t == &q.idle:
		q.x.Cut()
	case q.paused:
		q.paused = false
		q.connect()
	}
}

// Active implements h2.Carrier. Of one turn the first counts for all.
func (l *loop) Active(x *h2.Exchange) {
	q := x.User.(*h2Request)
	if q.route == nil {
		return
	}
	if d := q.route.HTTP.IdleTimeout; d > 0 && q.idle.when != l.now+int64(d) {
		l.arm(&q.idle, d, q)
	}
}

func (q *h2Request) log(took time.Duration) {
	x := q.x
	e := &q.l.entry
	*e = accesslog.Entry{
		Kind: q.route.HTTP.Protocol, Start: q.l.timeOfDay(q.start), Protocol: "HTTP/2", Status: x.Status,
		Received: x.Received, Sent: x.Sent, Duration: took, UpstreamTime: -1,
		GRPCStatus: x.GRPCStatus, Tries: int(q.tries), Method: []byte(x.Method),
	}
	if q.host != nil {
		e.UpstreamHost = q.host.Address
	}
	if x.HeadAt != 0 {
		e.UpstreamTime = time.Duration(x.HeadAt - q.tryBegan)
	}
	for _, h := range x.Request {
		switch h.Name {
		case ":path":
			e.Path = []byte(h.Value)
		case ":authority":
			e.Authority = []byte(h.Value)
		case "host":
			first(&e.Authority, h.Value)
		case "user-agent":
			first(&e.UserAgent, h.Value)
		case "x-forwarded-for":
			e.ForwardedFor = []byte(h.Value) // the last, which is the one continued
		case "x-request-id":
			first(&e.RequestID, h.Value)
		}
	}
	q.l.p.params.Access.Log(q.route.HTTP.AccessLog, e)
}

// first is what counts of a field that came more than once, as in HTTP/1.
func first(to *[]byte, value string) {
	if len(*to) == 0 {
		*to = []byte(value)
	}
}
