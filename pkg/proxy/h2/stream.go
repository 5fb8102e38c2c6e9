package h2

import (
	"errors"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What Open returns.
var (
	ErrBusy    = errors.New("http2: as many streams are open as the endpoint takes")
	ErrClosing = errors.New("http2: connection takes no more streams")
)

// Stream is one request on a session. Whoever was handed it, by Open or by the
// Headers of a request, calls Close once, also after Reset and after both
// sides have ended; until then the stream's memory is not used anew.
type Stream struct {
	ID   uint32
	User any // the owner's

	s          *Session
	sendWindow int64  // what we may send
	recvWindow int64  // what the peer may send
	held       int64  // handed over and not released
	owed       int64  // released and not yet given back to the peer (server)
	reserved   int64  // as much of the pool's
	counted    int64  // the same of what it holds
	length     int64  // of a body with content-length, what has not come; or -1
	begun      uint64 // how many bytes the session had written or held at Open

	localEnd  bool // we have ended our side
	remoteEnd bool
	head      bool // the final head, or the request, has come
	noBody    bool // a HEAD request: content-length of the response is no length
	gone      bool // not among the session's streams any more
	short     bool // Write took less than all, Writable is due
	queued    bool // in the session's queue, as prev and next
	prev      *Stream
	next      *Stream
}

// Session is the connection the stream is on.
func (st *Stream) Session() *Session { return st.s }

// Gone reports that the stream is over: nothing that is written arrives.
func (st *Stream) Gone() bool { return st.gone }

// Open begins a request, towards an endpoint. Fields are in order, pseudo
// fields first. ErrBusy says that another session is needed, ErrClosing that
// this one should be forgotten.
func (s *Session) Open(fields []hpack.HeaderField, end bool) (*Stream, error) {
	if s.cfg.Server || s.Closing() {
		return nil, ErrClosing
	}
	if s.Room() == 0 {
		return nil, ErrBusy
	}
	s.announce(s.window())
	st := s.adopt(s.nextID)
	s.nextID += 2
	st.begun = s.written + uint64(len(s.out))
	for i := 0; i < len(fields) && pseudoName(fields[i].Name); i++ {
		st.noBody = st.noBody || fields[i].Name == ":method" && fields[i].Value == "HEAD"
	}
	s.encode(fields)
	s.appendHeaders(st.ID, end)
	st.localEnd = end
	return st, nil
}

// adopt makes a stream that is open.
func (s *Session) adopt(id uint32) *Stream {
	st := s.pool.stream()
	st.ID, st.s, st.length = id, s, -1
	st.sendWindow, st.recvWindow = s.initialWindow, s.initial
	s.streams[id] = st
	st.account()
	return st
}

// Headers sends a response's head, final or not, or trailers, which end the
// stream. Data that Write has not taken is not waited for.
func (st *Stream) Headers(fields []hpack.HeaderField, end bool) {
	if st.gone || st.localEnd || st.s.mute() {
		return
	}
	st.s.encode(fields)
	st.s.appendHeaders(st.ID, end)
	if end {
		st.ended()
	}
}

// Write sends a part of a body, or ends it, and returns how many bytes it took:
// what both windows, the bound of the output and those who wait leave room for.
// After less than len(p) the rest is written anew, from Writable. An end
// counts once all is taken. A stream that is gone takes everything.
func (st *Stream) Write(p []byte, end bool) int {
	s := st.s
	if st.gone || st.localEnd || s.mute() {
		return len(p)
	}
	n := len(p)
	if n > 0 {
		n = int(max(0, min(int64(n), s.room(), st.sendWindow)))
		if s.waiting.head != nil {
			n = min(n, quantum)
		}
	}
	st.short = n < len(p)
	end = end && !st.short
	if n > maxFrame {
		s.grow(n + (n/maxFrame+1)*headerLen) // once
	}
	for took := 0; took < n || end && n == 0; {
		part := p[took:min(took+maxFrame, n)]
		took += len(part)
		s.appendData(st.ID, part, end && took == n)
		s.chatterTokens.earn(earnedData)
		if n == 0 {
			break
		}
	}
	st.sendWindow -= int64(n)
	s.sendWindow -= int64(n)
	if end {
		st.ended()
	} else if st.short && st.sendWindow > 0 {
		s.waiting.push(st)
	}
	return n
}

// room is what may be written to the connection now, bytes.
func (s *Session) room() int64 { return min(s.sendWindow, int64(maxOutput-s.pending())) }

// unblock queues a stream that waited for its own window.
func (s *Session) unblock(st *Stream) {
	if st.short && st.sendWindow > 0 {
		s.waiting.push(st)
	}
}

// wake lets those who wait write, in turn, while there is room.
func (s *Session) wake() {
	for s.waiting.head != nil && s.room() > 0 && !s.mute() {
		st := s.waiting.head
		s.waiting.remove(st)
		st.short = false
		s.handler.Writable(st)
	}
}

// ended notes that our side is complete.
func (st *Stream) ended() {
	st.localEnd, st.short = true, false
	st.s.waiting.remove(st)
	if st.remoteEnd {
		st.s.complete(st)
	}
}

// Release says that n bytes handed over by Data were passed on. They go back
// to the peer's windows once half a window is to be given back.
func (st *Stream) Release(n int) {
	st.held -= int64(n)
	st.s.credit(int64(n))
	switch {
	case st.gone || st.remoteEnd:
		st.account()
	case st.s.cfg.Server:
		st.credit(int64(n))
	default:
		st.regrant()
	}
}

// credit gives n bytes back to a client's window for this stream.
func (st *Stream) credit(n int64) {
	if st.owed += n; st.owed >= int64(st.s.cfg.StreamWindow)/2 {
		st.s.appendWindowUpdate(st.ID, st.owed)
		st.recvWindow += st.owed
		st.owed = 0
	}
}

// credit gives n bytes back to the peer's window for the connection.
func (s *Session) credit(n int64) {
	if s.owed += n; s.owed >= int64(s.cfg.ConnWindow)/2 {
		s.appendWindowUpdate(0, s.owed)
		s.recvWindow += s.owed
		s.owed = 0
	}
}

// Close gives the stream up. One that is not complete is reset with code;
// NO_ERROR says of a request that it need not be sent to its end. What was
// handed over and not released is. The stream must not be used afterwards.
func (st *Stream) Close(code http2.ErrCode) {
	s := st.s
	if !st.gone {
		s.appendReset(st.ID, code)
		s.remember(st.ID)
		s.retire(st)
	}
	s.credit(st.held)
	st.held = 0
	st.account()
	s.pool.putStream(st)
}

// complete retires a stream of which both sides have come to their end.
func (s *Session) complete(st *Stream) {
	s.resetTokens.earn(earnedAnswer)
	s.retire(st)
}

// retire takes a stream off the connection. Its owner's Close is still due.
func (s *Session) retire(st *Stream) {
	delete(s.streams, st.ID)
	s.waiting.remove(st)
	st.gone, st.short = true, false
	st.account()
	if s.body.st == st {
		s.body.st = nil
	}
}

// queue is a list of streams, linked through them.
type queue struct{ head, tail *Stream }

func (q *queue) push(st *Stream) {
	if st.queued {
		return
	}
	st.queued = true
	st.prev, st.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = st
	} else {
		q.head = st
	}
	q.tail = st
}

func (q *queue) remove(st *Stream) {
	if !st.queued {
		return
	}
	st.queued = false
	if st.prev != nil {
		st.prev.next = st.next
	} else {
		q.head = st.next
	}
	if st.next != nil {
		st.next.prev = st.prev
	} else {
		q.tail = st.prev
	}
	st.prev, st.next = nil, nil
}
