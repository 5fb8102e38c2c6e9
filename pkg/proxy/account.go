package proxy

import (
	"time"

	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/proxy/route"
)

// decide asks whether a failed try may be followed by another. An interim answer
// that was passed on is no reason against it: it promises nothing of the final
// one, and a client takes any number (RFC 9110 15.2). A body sent because of
// 100 Continue is there to be repeated as long as it is kept.
func (x *exchange) decide(f route.Failure) route.Verdict {
	return x.route.State.Decide(x.route.HTTP.Retry, route.Try{
		Failure: f, Idempotent: x.head.Method.Idempotent(), Replayable: x.replayable,
		ResponseStarted: x.committed, Tries: x.tries, Pooled: x.pooled, Freed: x.freed,
	}, x.l.now)
}

// again prepares the next try, which goes by the plan as it is by then: the
// endpoint may have been removed from it.
func (x *exchange) again(e *route.Endpoint, f route.Failure, v route.Verdict, answered bool) {
	x.route, x.task = x.l.p.table.Renew(x.c.vip, x.route, x.task)
	x.choice.Task = x.task
	if v == route.AgainFree {
		// As if it had not been: the endpoint did nothing wrong.
		x.tries--
		x.freed = true
		x.endpoint = nil
		e.InFlight.Add(-1)
		x.letGo()
		return
	}
	x.retries++
	x.leave(f, answered)
	x.choice.Tried = append(x.choice.Tried, e)
	if answered && x.spent() {
		x.giveBack()
	}
	x.letGo()
}

// spent says whether a whole answer that nobody wants lies in its buffer, so
// that its connection is good for more.
func (x *exchange) spent() bool {
	h := &x.answer
	x.reply = flow{}
	return !h.Chunked && h.ContentLength >= 0 && int64(len(x.resp)-h.Size) == h.ContentLength
}

// leave is the end of a try: its endpoint is counted, and what it did wrong
// held against it.
func (x *exchange) leave(f route.Failure, answered bool) {
	e := x.endpoint
	if e == nil {
		return
	}
	x.endpoint = nil
	e.InFlight.Add(-1)
	status := 0
	if answered {
		status = x.answer.Status
	}
	took := time.Duration(x.l.clock() - x.tryBegan)
	e.Counters.Done(status, -1, took, x.body.bytes, x.reply.bytes)
	x.route.State.Caller(x.task).Done(status, -1, took, 0, 0)
	switch {
	case answered && f == route.NoFailure && status < 500:
		x.l.p.judge(x.task.ID, e, true)
	case x.ours:
	case answered || f != route.NoFailure:
		x.l.p.judge(x.task.ID, e, false)
	}
}

// account counts and logs a request that is over.
func (x *exchange) account(end ending) {
	x.deadline.stop()
	x.phase.stop()
	x.leave(route.NoFailure, x.headAt != 0)
	if x.route == nil {
		x.l.p.refused(x.reason)
		return
	}
	took := time.Duration(x.l.clock() - x.start)
	status := x.status
	if end == endReset && !x.committed {
		status = 0
	}
	s := x.route.State
	s.Counters.Done(status, -1, took, x.body.bytes, x.reply.bytes)
	s.Ended(x.task, x.server, x.body.bytes, x.reply.bytes)
	if x.reason != "" {
		x.l.p.refused(x.reason)
	}
	if x.reason == reasonTimeout {
		s.Timeouts.Add(1)
	}
	if x.retries > 0 {
		s.Retried(x.headAt != 0 && x.status < 500)
	}
	if x.route.HTTP.AccessLog.Path != "" && x.l.p.params.Access != nil {
		x.log(took, status)
	}
}

func (x *exchange) log(took time.Duration, status int) {
	e := &x.l.entry
	*e = accesslog.Entry{
		Kind:  x.route.HTTP.Protocol, // another one's lines must not be in a service's log
		Start: x.l.timeOfDay(x.start), Status: status, Received: x.body.bytes, Sent: x.reply.bytes, Duration: took,
		UpstreamTime: -1, UpstreamHost: x.host, GRPCStatus: -1, Tries: int(x.tries),
	}
	if x.headAt != 0 && x.reason == "" { // a malformed one is no answer
		e.UpstreamTime = time.Duration(x.headAt - x.tryBegan)
	}
	if x.head.Size > 0 {
		h := &x.head
		e.Protocol = "HTTP/1.1"
		if h.Minor == 0 {
			e.Protocol = "HTTP/1.0"
		}
		e.Method, e.Path, e.Authority = h.MethodName.Of(x.req), h.Path(x.req), h.Host.Of(x.req)
		e.UserAgent, e.ForwardedFor, e.RequestID = h.UserAgent.Of(x.req), h.ForwardedFor.Of(x.req), h.RequestID.Of(x.req)
		if !x.forwarded.Empty() {
			e.ForwardedFor = x.forwarded.Of(x.out) // as it is when the line is written, by Envoy's rule
		}
		if len(e.RequestID) == 0 && x.id[0] != 0 {
			e.RequestID = x.id[:]
		}
	}
	x.l.p.params.Access.Log(x.route.HTTP.AccessLog, e)
}
