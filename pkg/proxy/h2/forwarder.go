package h2

import (
	"golang.org/x/net/http2/hpack"
)

// Failure is why a try came to nothing.
type Failure uint8

const (
	ConnectFailed   Failure = iota // no connection
	Unsent                         // the connection ended before a byte of the request had left
	RefusedStream                  // the endpoint says that it did nothing with it
	Reset                          // the stream or its connection ended before a response's head
	Unavailable                    // 503
	GRPCUnavailable                // gRPC's UNAVAILABLE, and nothing else in the response
	Malformed                      // an answer against the protocol
)

// Answer is what the endpoint answered that makes up the failure: its status, 0
// for no answer, and its call's result, -1 for none.
func (f Failure) Answer() (status, grpc int) {
	switch f {
	case Unavailable:
		return 503, -1
	case GRPCUnavailable:
		return 200, CallUnavailable
	}
	return 0, -1
}

// CallUnavailable is UNAVAILABLE as the result of a call.
const CallUnavailable = 14

// Carrier is what exchanges ask of the loop that carries them. Its methods run
// inside callbacks of sessions.
type Carrier interface {
	// Request announces an exchange: from now on its timeouts are the
	// carrier's, see Expire and Cut. A status other than 0 refuses it.
	Request(x *Exchange) (from Origin, refuse int)
	// Dial asks for a session with Room to the endpoint of the next try. The
	// answer is Connected or Failed, before Dial returns or later.
	Dial(x *Exchange)
	// Abandon takes back a Dial that was not answered.
	Abandon(x *Exchange)
	// Judge says whether another try is made after f; Dial follows. The
	// carrier counts tries and strikes, and looks at Replayable.
	Judge(x *Exchange, f Failure) (again bool)
	// Active says that, once Answered, something has moved, either way: what
	// the idle timeout counts from.
	Active(x *Exchange)
	// Done is the end. The exchange must not be touched after it returns.
	Done(x *Exchange)
}

// Origin is what the forwarder adds to a request, as HTTP/1 does.
type Origin struct {
	For       string // the client's address, for x-forwarded-for; "" adds none
	Proto     string // x-forwarded-proto unless the request has one; "" adds none
	RequestID string // x-request-id unless the request has one; "" adds none
}

// Bounds of what exchanges keep for replay, bytes.
const (
	maxReplay      = 64 << 10 // of one request's body
	maxReplayTotal = 32 << 20 // of all on a loop
)

// Forwarder is the Handler of all sessions of a loop, on both sides: it makes
// an Exchange of each request.
type Forwarder struct {
	// OnFlush is Handler.Flush.
	OnFlush func(s *Session)
	// Now is the carrier's clock, for the times of an Exchange; nil leaves them 0.
	Now func() int64

	carrier Carrier
	pool    *Pool
	replay  int // bytes that exchanges keep for replay
	free    []*Exchange
}

// maxFreeExchanges is how many a forwarder keeps for later requests, some
// 500 bytes and a list of fields each.
const maxFreeExchanges = 128

// NewForwarder returns the forwarder of one loop. pool is that of the loop's
// sessions.
func NewForwarder(pool *Pool, c Carrier, flush func(*Session)) *Forwarder {
	return &Forwarder{OnFlush: flush, carrier: c, pool: pool}
}

func (f *Forwarder) now() int64 {
	if f.Now == nil {
		return 0
	}
	return f.Now()
}

// Flush implements Handler.
func (f *Forwarder) Flush(s *Session) { f.OnFlush(s) }

// Headers implements Handler.
func (f *Forwarder) Headers(st *Stream, kind Kind, fields []hpack.HeaderField, end bool) {
	x, _ := st.User.(*Exchange)
	switch {
	case x == nil:
		f.begin(st, fields, end)
	case st == x.down:
		x.requestTrailers(fields)
	case kind == Trailers:
		x.responseTrailers(fields)
	case kind == Informational:
		x.informational(fields)
	default:
		x.response(fields, end)
	}
}

// Data implements Handler.
func (f *Forwarder) Data(st *Stream, p []byte, end bool) {
	if x := st.User.(*Exchange); st == x.down {
		x.requestData(p, end)
	} else {
		x.responseData(p, end)
	}
}

// Writable implements Handler.
func (f *Forwarder) Writable(st *Stream) {
	if x := st.User.(*Exchange); st == x.down {
		x.pumpResponse()
	} else {
		x.pumpRequest()
	}
}

// Reset implements Handler.
func (f *Forwarder) Reset(st *Stream, cause Cause) {
	if x := st.User.(*Exchange); st == x.down {
		x.clientGone()
	} else {
		x.endpointGone(cause)
	}
}

func (f *Forwarder) exchange() *Exchange {
	n := len(f.free)
	if n == 0 {
		return &Exchange{f: f, GRPCStatus: -1}
	}
	x := f.free[n-1]
	f.free = f.free[:n-1]
	return x
}

func (f *Forwarder) put(x *Exchange) {
	f.pool.putBuffer(x.req.buf)
	f.pool.putBuffer(x.res.buf)
	clear(x.Request)
	fields := x.Request[:0]
	*x = Exchange{f: f, GRPCStatus: -1}
	if cap(fields) <= maxFreeFields {
		x.Request = fields
	}
	if len(f.free) < maxFreeExchanges {
		f.free = append(f.free, x)
	}
}
