package h2

import (
	"bytes"
	"math/bits"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Config is what a session is made with.
type Config struct {
	// Server is set for a session towards a client: it awaits the preface and
	// takes requests. Otherwise it is a session towards an endpoint.
	Server bool
	// MaxStreams bounds the requests in flight. A client is told, and refused
	// beyond it (REFUSED_STREAM, which clients repeat); towards an endpoint it
	// is our own bound besides the endpoint's. 0 is 100.
	MaxStreams int
	// StreamWindow is what a peer may send on one stream ahead of Release, in
	// bytes, and so what one side of an exchange may have to keep; 64 KiB to
	// 1 GiB, 0 is 128 KiB. Towards an endpoint it is the most, see window.go.
	StreamWindow int
	// ConnWindow is the same for all streams together. 0 is 1 MiB towards a
	// client, and towards an endpoint as much as all streams need: there,
	// requests of different clients meet, and one that does not read must not
	// hold up the others. Not below StreamWindow.
	ConnWindow int
	// Refused is told of a request that is answered here and handed to nobody;
	// nil is not told.
	Refused func(status int, reason string)
	// Pool is shared by the sessions of one loop. Nil makes one of its own.
	Pool *Pool
}

// Bounds of Config.
const (
	defaultStreams      = 100
	defaultStreamWindow = 128 << 10
	defaultServerWindow = 1 << 20
	protocolWindow      = 64<<10 - 1 // what a peer assumes before it read our SETTINGS
	maxWindow           = 1<<31 - 1
)

func (c Config) withDefaults() Config {
	if c.MaxStreams <= 0 {
		c.MaxStreams = defaultStreams
	}
	if c.StreamWindow == 0 {
		c.StreamWindow = defaultStreamWindow
	}
	// Below the protocol's own default a peer could break a window it has not
	// heard of yet.
	c.StreamWindow = min(max(c.StreamWindow, protocolWindow), 1<<30)
	if c.ConnWindow == 0 && c.Server {
		c.ConnWindow = defaultServerWindow
	} else if c.ConnWindow == 0 {
		c.ConnWindow = min(c.MaxStreams*c.StreamWindow, 1<<30)
	}
	c.ConnWindow = min(max(c.ConnWindow, c.StreamWindow), 1<<30)
	if c.Pool == nil {
		c.Pool = NewPool()
	}
	return c
}

// Kind says what a field list is.
type Kind uint8

const (
	Head          Kind = iota // a request, or a final response's head
	Informational             // a response 1xx, more follow
	Trailers                  // the end of a message
)

// Handler is told what happens. Its methods may call whatever they like of any
// session of the loop but Feed, Sent and Close.
type Handler interface {
	// Headers hands over a field list that was checked, see fields.go. end says
	// that nothing follows.
	Headers(st *Stream, kind Kind, fields []hpack.HeaderField, end bool)
	// Data hands over a part of a body, as it arrives; it may be empty at the
	// end. Release gives its bytes back to the peer's window.
	Data(st *Stream, p []byte, end bool)
	// Reset says that a stream is over before its time. Close is still due.
	Reset(st *Stream, cause Cause)
	// Writable follows a Write that took less than all, once there is room.
	Writable(st *Stream)
	// Flush says that there is output where was none: the owner writes it when
	// its turn ends. It is the one callback that any method may cause, and
	// must not call into a session.
	Flush(s *Session)
}

// Cause is why a stream ended before its time.
type Cause struct {
	Code http2.ErrCode
	// Local: it was we who found fault, with what the peer sent.
	Local bool
	// Unprocessed: the peer says it did nothing with the request
	// (REFUSED_STREAM, or a GOAWAY that excludes it).
	Unprocessed bool
	// Lost: the connection ended under it.
	Lost bool
	// Unsent: and not one byte of the request had left.
	Unsent bool
}

// Pool is what the sessions of one loop share: memory that is needed only for
// the length of a call, and streams and buffers that were given back.
type Pool struct {
	framer  *http2.Framer
	frame   bytes.Reader // the frame the framer reads next
	fields  []hpack.HeaderField
	block   bytes.Buffer // the header block being encoded
	streams *Stream      // free, linked by next
	free    int
	buffers [][]byte

	reserved int64  // what responses hold, or may come to
	held     int64  // what they hold
	others   *int64 // what else of the loop is held for slow readers
}

// What a pool keeps at most: 128 streams of some 100 bytes, 16 buffers of up
// to 128 KiB.
const (
	maxFreeStreams = 128
	maxFreeBuffers = 16
	maxFreeBuffer  = 128 << 10
	minBuffer      = 4 << 10
)

// NewPool returns an empty pool.
func NewPool() *Pool {
	p := &Pool{}
	p.framer = http2.NewFramer(nil, &p.frame)
	p.framer.SetMaxReadFrameSize(maxFrame)
	// The framer is shared: the order of HEADERS and CONTINUATION belongs to a
	// connection and is watched by the session.
	p.framer.AllowIllegalReads = true
	return p
}

func (p *Pool) stream() *Stream {
	st := p.streams
	if st == nil {
		return &Stream{}
	}
	p.streams, p.free = st.next, p.free-1
	st.next = nil
	return st
}

func (p *Pool) putStream(st *Stream) {
	*st = Stream{}
	if p.free < maxFreeStreams {
		st.next, p.streams, p.free = p.streams, st, p.free+1
	}
}

// buffer returns an empty buffer with room for n bytes: for little the smallest
// there is, and else the largest, since more will follow.
func (p *Pool) buffer(n int) []byte {
	best := -1
	for i, b := range p.buffers {
		if cap(b) >= n && (best < 0 || (cap(b) < cap(p.buffers[best])) == (n <= minBuffer)) {
			best = i
		}
	}
	if best < 0 {
		return make([]byte, 0, max(1<<bits.Len(uint(n-1)), minBuffer))
	}
	b, last := p.buffers[best], len(p.buffers)-1
	p.buffers[best], p.buffers[last] = p.buffers[last], nil
	p.buffers = p.buffers[:last]
	return b
}

// room returns b, or a larger buffer with what it holds, with room for n bytes
// more.
func (p *Pool) room(b []byte, n int) []byte {
	switch need := len(b) + n; {
	case b == nil:
		return p.buffer(n)
	case need > cap(b):
		grown := append(p.buffer(max(need, 2*cap(b))), b...)
		p.putBuffer(b)
		return grown
	}
	return b
}

// putBuffer takes one back; one that grew beyond use goes to the collector.
func (p *Pool) putBuffer(b []byte) {
	if b != nil && cap(b) <= maxFreeBuffer && len(p.buffers) < maxFreeBuffers {
		p.buffers = append(p.buffers, b[:0])
	}
}
