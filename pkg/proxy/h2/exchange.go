package h2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Exchange is one request on its way: a client's stream, and the stream of the
// try that is being made. Both windows are coupled: what a side sends is
// released to it when the other side has taken it.
type Exchange struct {
	// User is the carrier's.
	User any

	// Request is what endpoints are sent, with what the forwarder added.
	Request []hpack.HeaderField
	Method  string
	// Status is the response's, 0 while there is none.
	Status int
	// GRPC says that this is a call; GRPCStatus is its result, -1 while unknown.
	GRPC       bool
	GRPCStatus int
	// HasDeadline: the call has a deadline of its own, which exempts it from
	// perRequestTimeout.
	HasDeadline bool
	// Tries is how often Dial was called.
	Tries int
	// Fed is when something of the request came last, HeadAt when the final
	// response's head did, by Forwarder.Now; 0: none has.
	Fed, HeadAt int64
	// Received and Sent are the bytes of bodies from and to the client.
	Received, Sent int64
	// Reason is why the forwarder answered itself, "" if it did not. A carrier
	// that knows better than the exchange sets it before Failed, or with the
	// status of a refusal; Dial forgets it.
	Reason string
	// Aborted: the response did not come to its end, by whosever doing.
	Aborted bool
	// Broken: it was the endpoint's, after the response's head.
	Broken bool

	f       *Forwarder
	down    *Stream // the client's
	up      *Stream // the endpoint's, nil between tries
	dialing bool
	own     bool // the forwarder answers itself
	heard   bool // the final response's head was passed on
	req     message
	res     message
}

// message is one direction: what could not be passed on yet and, of a request
// that may have to be repeated, what was.
type message struct {
	buf      []byte
	sent     int // of buf, to the present stream
	released int // of buf, to the sender's window
	keep     bool
	lost     bool // something of it is gone from buf
	end      bool // all has come
	trailers []hpack.HeaderField
	finished bool // its end is written
}

// Client is the stream the request came on.
func (x *Exchange) Client() *Stream { return x.down }

// Endpoint is the stream of the present try, or nil.
func (x *Exchange) Endpoint() *Stream { return x.up }

// Answered reports that the response's head was passed on, after which only
// the idle timeout counts.
func (x *Exchange) Answered() bool { return x.heard || x.own }

// AwaitsClient reports that the endpoint has been given all that came of the
// request, whose end has not come.
func (x *Exchange) AwaitsClient() bool {
	return !x.req.end && x.up != nil && x.req.sent == len(x.req.buf)
}

// Replayable reports that another try could be given the whole request.
func (x *Exchange) Replayable() bool { return !x.Answered() && !x.req.lost }

// begin makes an exchange of a request.
func (f *Forwarder) begin(st *Stream, fields []hpack.HeaderField, end bool) {
	x := f.exchange()
	x.down, st.User = st, x
	x.req.end, x.req.keep = end, true
	x.Request = append(x.Request, fields...)
	x.note(fields)
	x.Fed = f.now()
	from, refuse := f.carrier.Request(x)
	if refuse == 0 && x.Method == "CONNECT" {
		refuse = 405 // tunnels are not ours
	}
	if refuse != 0 {
		x.reply(refuse, ReasonBadRequest)
		return
	}
	x.Request = from.add(x.Request)
	x.dial()
}

// note reads what decides how a request is treated.
func (x *Exchange) note(fields []hpack.HeaderField) {
	for _, h := range fields {
		switch h.Name {
		case ":method":
			x.Method = h.Value
		case "content-type":
			rest, ok := strings.CutPrefix(h.Value, "application/grpc")
			x.GRPC = ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
		case "grpc-timeout":
			x.HasDeadline = true
		}
	}
}

func (x *Exchange) dial() {
	x.dialing = true
	x.req.sent = 0 // of the last try: all of it goes out anew
	x.Tries++
	x.Reason = ""
	x.f.carrier.Dial(x)
}

// Connected answers Dial.
func (x *Exchange) Connected(s *Session) {
	if !x.dialing {
		return
	}
	r := &x.req
	// An empty body is ended by the request itself.
	end := r.end && len(r.buf) == 0 && r.trailers == nil
	st, err := s.Open(x.Request, end)
	if err != nil {
		x.Failed(Unsent)
		return
	}
	x.dialing = false
	x.up, st.User = st, x
	r.finished = end
	x.pumpRequest()
}

// Failed answers Dial when there is no session.
func (x *Exchange) Failed(why Failure) {
	if x.dialing {
		x.dialing = false
		x.failed(why)
	}
}

// failed makes another try, or tells the client.
func (x *Exchange) failed(why Failure) {
	if x.f.carrier.Judge(x, why) && x.Replayable() {
		x.dial()
		return
	}
	status := 503
	if why == Malformed {
		status = 502
	}
	x.reply(status, why.reason())
}

// hangUp gives up the present try.
func (x *Exchange) hangUp(code http2.ErrCode) {
	if x.dialing {
		x.dialing = false
		x.f.carrier.Abandon(x)
	}
	if up := x.up; up != nil {
		x.up = nil
		up.Close(code)
	}
}

// Expire ends the wait for a response's head, or for the rest of the request, by
// an answer of our own. It does nothing once Answered.
func (x *Exchange) Expire(status int, reason string) {
	if x.Answered() {
		return
	}
	x.reply(status, reason)
}

// Cut ends the exchange on both sides, whatever its state, by resets.
func (x *Exchange) Cut() { x.cut(http2.ErrCodeCancel) }

func (x *Exchange) cut(code http2.ErrCode) {
	x.Aborted = true
	x.finish(code, http2.ErrCodeCancel)
}

// reply answers the client itself, for the reason unless the carrier named one.
// A call gets its status, by gRPC's rules for what 503 and 504 mean.
func (x *Exchange) reply(status int, reason string) {
	x.hangUp(http2.ErrCodeCancel)
	if x.Reason != "" {
		reason = x.Reason
	}
	x.own, x.Reason = true, reason
	x.active()
	x.dropRequest()
	if x.GRPC {
		x.Status, x.GRPCStatus = 200, CallUnavailable
		switch status {
		case 504:
			x.GRPCStatus = 4 // DEADLINE_EXCEEDED
		case 404, 405:
			x.GRPCStatus = 12 // UNIMPLEMENTED
		}
		x.res.end, x.res.finished = true, true
		x.down.Headers([]hpack.HeaderField{
			{Name: ":status", Value: "200"},
			{Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: strconv.Itoa(x.GRPCStatus)},
			{Name: "grpc-message", Value: reason},
			{Name: "x-connectd-reason", Value: reason},
		}, true)
		x.settle()
		return
	}
	x.Status = status
	text := append(x.f.pool.buffer(len(reason)+1), reason...)
	text = append(text, '\n')
	x.down.Headers([]hpack.HeaderField{
		{Name: ":status", Value: strconv.Itoa(status)},
		{Name: "content-type", Value: "text/plain"},
		{Name: "content-length", Value: strconv.Itoa(len(text))},
		{Name: "x-connectd-reason", Value: reason},
	}, false)
	x.res.buf, x.res.end = text, true
	if x.Method == "HEAD" {
		x.res.buf = text[:0]
	}
	x.pumpResponse()
}

// clientGone: the client reset its stream, or its connection ended.
func (x *Exchange) clientGone() {
	x.Aborted = !x.res.finished
	x.finish(http2.ErrCodeNo, http2.ErrCodeCancel)
}

// endpointGone: the try's stream ended before its time.
func (x *Exchange) endpointGone(cause Cause) {
	switch {
	case x.res.end:
		// The response is whole; the endpoint wants no more of the request.
		x.dropRequest()
		x.settle()
	case !x.heard && x.GRPC && cause.Code == http2.ErrCodeCancel && !cause.Local && !cause.Lost:
		// The server's clock for the call's deadline ran out before the
		// client's. It is no failure, and the client knows what a CANCEL means.
		x.GRPCStatus = 1 // CANCELLED
		x.cut(cause.Code)
	case !x.heard:
		x.hangUp(cause.Code)
		x.failed(cause.failure())
	case x.GRPC && cause.Code == http2.ErrCodeCancel && !cause.Local && !cause.Lost:
		// As above, within a stream: a deadline, or a handler that ended the
		// call. Of other requests a CANCEL is half a response like any other.
		x.cut(cause.Code)
	case x.GRPC && cause.Lost:
		// Without a forwarder the client would have seen its own connection
		// end, and told its caller UNAVAILABLE; a reset would be INTERNAL.
		x.GRPCStatus, x.Aborted, x.Broken = CallUnavailable, true, true
		x.dropRequest()
		x.res.end, x.res.trailers = true, []hpack.HeaderField{
			{Name: "grpc-status", Value: "14"},
			{Name: "grpc-message", Value: "connection lost"},
		}
		x.pumpResponse()
	default:
		x.Broken = true
		x.cut(cause.passed())
	}
}

// passed is the code that tells a client of a response that broke off. Two of
// them would tell it that all is well or that nothing was done.
func (c Cause) passed() http2.ErrCode {
	if c.Code == http2.ErrCodeNo || c.Code == http2.ErrCodeRefusedStream {
		return http2.ErrCodeInternal
	}
	return c.Code
}

// failure is what a stream that ended before a response counts as.
func (c Cause) failure() Failure {
	switch {
	case c.Unsent:
		return Unsent
	case c.Unprocessed:
		return RefusedStream
	case c.Local:
		return Malformed
	}
	return Reset
}

// settle ends the exchange if nothing is left to do. A response that is sent
// while its request is under way leaves the request to the endpoint, which
// reads it or resets.
func (x *Exchange) settle() {
	if x.res.finished && (x.up == nil || x.up.Gone()) {
		x.finish(http2.ErrCodeNo, http2.ErrCodeCancel)
	}
}

// finish lets both streams go and reports. Codes matter where a stream is not
// complete.
func (x *Exchange) finish(down, up http2.ErrCode) {
	x.hangUp(up)
	x.dropRequest()
	x.down.Close(down)
	x.f.carrier.Done(x)
	x.f.put(x)
}
