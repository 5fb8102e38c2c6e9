package proxy

import (
	"connectd/pkg/proxy/http1"
	"connectd/pkg/proxy/route"
)

// relay passes the answer on to the client. From here on nothing can be tried
// again: what goes wrong is a reset.
func (x *exchange) relay() ending {
	x.deadline.stop()
	x.headAt = x.l.now
	x.status = x.answer.Status
	if x.answer.Status == 101 {
		if !x.head.Upgrade {
			return x.malformed() // nobody asked for another protocol
		}
		return x.tunnel()
	}
	if !x.commit() {
		return x.malformed()
	}
	for !x.reply.finished() {
		moved := x.l.move(&x.reply)
		switch moved {
		case flowCut, flowBad:
			x.route.State.BrokeOff()
			x.leave(route.Reset, true)
			return endReset
		case flowBroken:
			return x.gone()
		}
		// An endpoint may answer while the request is still coming.
		if !x.requestThrough() && x.up != nil && !x.deaf {
			switch x.push(x.up) {
			case flowMoved:
				moved = flowMoved
			case flowBroken:
				x.deaf = true // it has said what it will, and listens no more
			case flowCut, flowBad:
				return endReset
			}
		}
		if moved == flowMoved {
			if x.relaying() {
				x.yield()
			}
			continue
		}
		if !x.waitRelay() {
			return x.stopped()
		}
	}
	x.giveBack()
	switch {
	case x.keep:
		return endKeep
	case !x.body.done || x.c.in:
		return endLinger
	}
	return endClose
}

// commit builds what the client gets of the head and of the body at hand.
func (x *exchange) commit() bool {
	h := &x.answer
	x.committed = true
	rest := x.resp[h.Size:]
	x.reply = flow{from: &x.up.sock, to: &x.c.sock}
	old := x.head.Minor == 0
	keep := !x.head.Close && (!old || x.head.KeepAlive) && x.requestThrough() && !x.leaving()
	switch h.ResponseBody(x.head.Method) {
	case http1.NoBody:
		x.reply.done = true
		// A body that a 204 announces may come all the same.
		x.stale = h.Status == 204 && (h.Chunked || h.ContentLength > 0)
	case http1.Length:
		x.reply.left = h.ContentLength
		x.reply.done = h.ContentLength == 0
	case http1.Chunks:
		x.reply.framing, x.reply.dechunk = byChunks, old
		keep = keep && !old
	case http1.UntilClose:
		x.reply.framing = byEnd
		keep = false
	}
	x.keep = keep
	edit := http1.ResponseEdit{Close: !keep, KeepAlive: keep && old, Dechunk: x.reply.dechunk}
	held := x.l.free.get(h.Size + len(rest) + headSlack)
	held = h.AppendResponse(held, x.resp[:h.Size], &edit)
	ok := true
	if !x.reply.done && len(rest) > 0 {
		var data []byte
		if x.reply.framing == byLength && int64(len(rest)) > x.reply.left {
			x.stale = true // it said more than it announced
			rest = rest[:x.reply.left]
		}
		data, ok = x.reply.accept(x.l, rest)
		held = append(held, data...)
	} else if len(rest) > 0 {
		x.stale = true
	}
	x.l.holding += int64(cap(held))
	x.reply.held = held
	return ok
}

// relaying says whether relay can go on without waiting.
func (x *exchange) relaying() bool {
	if x.reply.empty() && !x.reply.done && x.reply.from.in && x.c.out {
		return true
	}
	return !x.requestThrough() && !x.deaf && x.up != nil && x.up.out && (x.sent < len(x.out) || x.c.in)
}

// requestThrough says whether the endpoint has the whole request.
func (x *exchange) requestThrough() bool { return x.sent == len(x.out) && x.body.finished() }

// giveBack puts the endpoint's connection into its pool, if it may carry
// another request.
func (x *exchange) giveBack() {
	u, h := x.up, &x.answer
	if u == nil {
		return
	}
	if !x.requestThrough() || x.stale || len(x.reply.over) > 0 || h.Close || h.Minor == 0 && !h.KeepAlive || x.reply.framing == byEnd {
		x.letGo()
		return
	}
	x.up = nil
	x.l.keep(x.c.seat, u)
}

// tunnel passes bytes both ways after 101 Switching Protocols, until both
// sides have ended.
func (x *exchange) tunnel() ending {
	l, u := x.l, x.up
	x.committed, x.tunnelled = true, true
	l.drain(&x.body)
	rest := x.req[x.size:]
	x.after = len(x.req)
	x.body = flow{from: &x.c.sock, to: &u.sock, framing: byEnd}
	if len(rest) > 0 {
		l.hold(&x.body, rest)
	}
	edit := http1.ResponseEdit{}
	x.reply = flow{from: &u.sock, to: &x.c.sock, framing: byEnd}
	held := x.answer.AppendResponse(l.free.get(len(x.resp)+headSlack), x.resp[:x.answer.Size], &edit)
	held = append(held, x.resp[x.answer.Size:]...)
	l.holding += int64(cap(held))
	x.reply.held = held
	var shut [2]bool
	for {
		moved := flowStuck
		for i, f := range [...]*flow{&x.reply, &x.body} {
			switch l.move(f) {
			case flowMoved:
				moved = flowMoved
			case flowCut, flowBroken, flowBad:
				return endReset
			}
			if f.finished() && !shut[i] {
				f.to.shutdown()
				shut[i] = true
			}
		}
		switch {
		case shut[0] && shut[1]:
			return endClose
		case moved == flowMoved:
			x.yield()
		case !x.waitRelay():
			return x.stopped()
		}
	}
}

// inform passes on an interim answer, whose head is size bytes, and takes it
// off.
func (x *exchange) inform(size int) bool {
	x.informed++
	if x.informed > maxInterim {
		return false
	}
	if x.head.Minor > 0 {
		edit := http1.ResponseEdit{}
		held := x.answer.AppendResponse(x.l.free.get(size+headSlack), x.resp[:size], &edit)
		ok := x.send(held)
		x.l.free.put(held)
		if !ok {
			x.stop = stopGone
			return true
		}
	}
	x.resp = x.resp[:copy(x.resp, x.resp[size:])]
	x.respScan = 0
	return true
}

// send writes a whole message to the client, waiting for it as need be.
func (x *exchange) send(p []byte) bool {
	for len(p) > 0 {
		if !x.c.out {
			x.armIdle()
			x.wait(wantOut, 0)
			if x.stop != stopNone {
				return false
			}
		}
		n, res := x.c.write(p, false)
		if res == resultFailed {
			return false
		}
		p = p[n:]
	}
	return true
}
