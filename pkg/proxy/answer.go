package proxy

import (
	"net/http"
	"strconv"
	"time"

	"connectd/pkg/proxy/h2"
	"connectd/pkg/proxy/http1"
	"connectd/pkg/proxy/route"
)

// Reasons, in x-connectd-reason and in metrics, for answers that are
// connectd's own.
const (
	reasonNoService    = "no_service"   // the VIP is no service's any more
	reasonOutOfScope   = "out_of_scope" // the task may not use the service's namespace
	reasonNoEndpoint   = "no_endpoint"  // nothing to choose from
	reasonConnect      = h2.ReasonConnect
	reasonReset        = h2.ReasonReset
	reasonMalformed    = h2.ReasonMalformed
	reasonTimeout      = h2.ReasonTimeout
	reasonBadRequest   = h2.ReasonBadRequest
	reasonHeadTooLarge = h2.ReasonHeadTooLarge
	reasonSlow         = "slow_head"
	reasonSlowBody     = "slow_body"
	reasonNeedsHTTP2   = "needs_http2" // the service speaks HTTP/2 only
	reasonNeedsHTTP1   = "needs_http1"
	reasonBodyFraming  = "bad_body"
	reasonNoDescriptor = "no_descriptor" // out of file descriptors
	reasonNotReady     = "not_ready"     // to a task that asked whether it is; no refusal of a request
)

// refuse answers in the endpoint's place. The client's connection lives on
// where the request's end is known.
func (x *exchange) refuse(status int, reason string) ending {
	x.letGo()
	x.deadline.stop()
	x.leave(route.NoFailure, false)
	x.reason = reason
	return x.answerSelf(status, "x-connectd-reason: "+reason+"\r\n", "connectd: "+http.StatusText(status)+" ("+reason+")\n")
}

// answerSelf sends an answer of connectd's own. fields are whole lines.
func (x *exchange) answerSelf(status int, fields, text string) ending {
	l := x.l
	x.status, x.committed = status, true
	parsed := x.head.Size > 0 && x.size == x.head.Size && status != 400
	keep := parsed && x.replayable && x.body.finished() && !x.head.Close && x.head.Minor == 1 && !x.leaving()
	b := l.free.get(smallBuffer)
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	b = append(b, "\r\ndate: "...)
	b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	b = append(b, "\r\ncontent-type: text/plain; charset=utf-8\r\n"...)
	b = append(b, fields...)
	if !keep {
		b = append(b, "connection: close\r\n"...)
	}
	b = append(b, "content-length: "...)
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, "\r\n\r\n"...)
	x.reply = flow{done: true}
	if !parsed || x.head.Method != http1.Head {
		b = append(b, text...)
		x.reply.bytes = int64(len(text))
	}
	if x.stop != stopClosing {
		x.stop = stopNone
	}
	ok := x.send(b)
	l.free.put(b)
	switch {
	case !ok:
		return endReset
	case keep:
		return endKeep
	}
	return endLinger
}

// leaving says whether the client is to connect anew for its next request.
func (x *exchange) leaving() bool {
	return x.l.p.draining.Load() || x.route != nil && x.route.Former
}

// failed answers when all tries have been used up.
func (x *exchange) failed(f route.Failure) ending {
	x.leave(f, false)
	switch {
	case f == route.ConnectFailed && x.ours:
		return x.refuse(503, reasonNoDescriptor)
	case f == route.ConnectFailed:
		return x.refuse(503, reasonConnect)
	case f == route.Malformed:
		return x.refuse(502, reasonMalformed)
	}
	return x.refuse(503, reasonReset)
}

func (x *exchange) malformed() ending {
	x.committed = false
	x.leave(route.Malformed, false)
	x.l.drain(&x.reply)
	return x.refuse(502, reasonMalformed)
}

// gone is the end of a request whose client has left: nobody is told.
func (x *exchange) gone() ending {
	x.stop = stopGone
	x.letGo()
	return endReset
}

// stopped ends a request that something else than its endpoint has ended.
func (x *exchange) stopped() ending {
	switch x.stop {
	case stopDeadline:
		if !x.committed {
			x.leave(route.Reset, false)
			return x.refuse(504, reasonTimeout)
		}
	case stopClient:
		if !x.committed {
			return x.refuse(408, reasonSlowBody)
		}
	case stopBad:
		if !x.committed {
			return x.refuse(400, reasonBodyFraming)
		}
	}
	x.letGo()
	return endReset
}
