package proxy

import (
	"connectd/pkg/proxy/http1"
)

// read parses the request's head.
func (x *exchange) read() (ending, bool) {
	x.keep = false
	if x.slow {
		return x.refuse(408, reasonSlow), false
	}
	if x.size > maxHead {
		return x.refuse(431, reasonHeadTooLarge), false
	}
	if err := x.head.ParseRequest(x.req[:x.size]); err != nil {
		return x.refuse(err.Status, reasonBadRequest), false
	}
	return endKeep, true
}

// prepare rebuilds the head for the endpoints and takes the part of the body
// that came with it.
func (x *exchange) prepare() (ok bool) {
	h := &x.head
	edit := http1.RequestEdit{ForwardedFor: x.c.seat.source(x.route, x.c.vip.Addr().Is6()), Authority: x.route.Authority}
	if h.RequestID.Empty() {
		x.l.newID(&x.id)
		edit.RequestID = x.id[:]
	}
	if cap(x.out) == 0 {
		x.out = x.l.free.get(smallBuffer)
	}
	x.out = h.AppendRequest(x.out[:0], x.req[:x.size], &edit)
	x.headLen, x.forwarded = len(x.out), edit.Forwarded
	x.replayable = true

	x.body = flow{from: &x.c.sock, framing: byLength}
	switch {
	case h.Chunked:
		x.body.framing = byChunks
	case h.ContentLength > 0:
		x.body.left = h.ContentLength
	default:
		x.body.done = true
		x.after = x.size
		return true
	}
	rest := x.req[x.size:]
	if x.body.framing == byLength && int64(len(rest)) > x.body.left {
		rest = rest[:x.body.left]
	}
	x.after = x.size + len(rest)
	if len(rest) == 0 {
		return true
	}
	data, ok := x.body.accept(x.l, rest)
	if !ok {
		return false
	}
	if x.body.framing == byChunks {
		// What is beyond the body lies in req, where the next request is
		// looked for.
		x.after = x.size + len(data)
		x.l.free.put(x.body.over)
		x.body.over = nil
	}
	x.out = append(x.l.free.grow(x.out, len(x.out)+len(data)), data...)
	return true
}

// feed takes more of the body from the client: into out as long as it can be
// sent again, and straight to the endpoint when it has grown too large.
func (x *exchange) feed() flowResult {
	if x.replayable && x.roomForReplay() {
		return x.feedReplay()
	}
	x.replayable = false
	if x.sent < len(x.out) {
		return flowStuck
	}
	return x.l.move(&x.body)
}

func (x *exchange) feedReplay() flowResult {
	if x.body.done || !x.c.in {
		return flowStuck
	}
	old := len(x.out)
	room := x.out[old:cap(x.out)]
	if x.body.framing == byLength && int64(len(room)) > x.body.left {
		room = room[:x.body.left]
	}
	n, res := x.c.read(room)
	switch res {
	case resultAgain:
		return flowStuck
	case resultEOF, resultFailed:
		return flowCut
	}
	data, ok := x.body.accept(x.l, room[:n])
	if !ok {
		return flowBad
	}
	x.out = x.out[:old+len(data)]
	return flowMoved
}

// roomForReplay makes room for more of the body, as long as it is short enough
// to be kept and all requests together keep little.
func (x *exchange) roomForReplay() bool {
	if x.body.done {
		return true
	}
	if len(x.out)-x.headLen >= maxReplay {
		return false
	}
	if len(x.out) < cap(x.out) {
		return true
	}
	more := cap(x.out)
	if x.l.p.replay.Add(int64(more)) > maxReplayTotal {
		x.l.p.replay.Add(int64(-more))
		return false
	}
	x.grown += more
	x.out = x.l.free.grow(x.out, 2*more)
	return true
}

// repeatable says whether the request may be sent again after bytes of it went
// out.
func (x *exchange) repeatable() bool {
	return x.head.Method.Idempotent() || x.route.HTTP.Retry.AllMethods
}

const hexDigits = "0123456789abcdef"

// newID makes a random UUID, version 4, as Service Connect's proxy does.
func (l *loop) newID(id *[36]byte) {
	hi, lo := l.rand.Uint64(), l.rand.Uint64()
	hi = hi&^(0xf<<12) | 4<<12
	lo = lo&^(3<<62) | 2<<62
	i := 0
	for n := range 32 {
		if n == 8 || n == 12 || n == 16 || n == 20 {
			id[i] = '-'
			i++
		}
		word := hi
		if n >= 16 {
			word = lo
		}
		id[i] = hexDigits[word>>(60-4*(n&15))&15]
		i++
	}
}
