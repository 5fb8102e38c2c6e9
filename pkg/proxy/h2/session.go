package h2

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Session is one HTTP/2 connection.
type Session struct {
	// User is the owner's, for instance the connection this session is of.
	User any

	cfg     Config
	pool    *Pool
	handler Handler
	dec     *hpack.Decoder
	enc     *hpack.Encoder
	now     time.Time // of the Feed or Sent that is running
	err     error     // the connection error that ended it
	closed  bool

	in     []byte // a frame, or the preface, that is not whole yet
	frames uint64 // that were whole
	body   body   // the DATA frame whose payload is arriving
	block  block  // the header block whose frames are arriving
	list   uint32 // bytes of the field list being decoded, as RFC 9113 6.5.2 counts
	greets bool   // the preface (server) is still awaited
	hello  bool   // the peer's first SETTINGS has come

	out     []byte
	outSent int    // bytes at out's beginning that are written
	written uint64 // bytes written before those
	acks    int    // PING and SETTINGS acknowledged in out

	streams  map[uint32]*Stream
	waiting  queue  // streams with something to write and no room
	lastPeer uint32 // the newest stream of the peer (server)
	nextID   uint32 // the next stream of ours (client)
	resets   [maxOwnResets]uint32
	reset    int // where the next goes in resets

	sendWindow    int64 // what we may send on the connection
	recvWindow    int64 // what the peer may send on it
	owed          int64 // released and not yet given back to the peer
	initialWindow int64 // of the peer, for each new stream
	initial       int64 // ours, the same
	peerStreams   uint32

	resetTokens   bucket
	chatterTokens bucket

	away     bool   // the peer sent GOAWAY
	drain    uint8  // how far Shutdown has come
	lastTake uint32 // streams of the peer beyond it are not taken any more
}

// New returns a session whose greeting is in Output.
func New(cfg Config, h Handler) *Session {
	cfg = cfg.withDefaults()
	s := &Session{
		cfg: cfg, pool: cfg.Pool, handler: h,
		greets:        cfg.Server,
		nextID:        1,
		sendWindow:    protocolWindow,
		recvWindow:    int64(cfg.ConnWindow),
		initialWindow: protocolWindow,
		// Until its SETTINGS say otherwise; RFC 9113 5.1.2 recommends no less.
		peerStreams: defaultStreams,
		lastTake:    maxWindow,
		streams:     map[uint32]*Stream{},
	}
	s.dec = hpack.NewDecoder(decodeTable, s.field)
	s.enc = hpack.NewEncoder(&s.pool.block)
	s.enc.SetMaxDynamicTableSizeLimit(maxTable)
	s.initial = int64(cfg.StreamWindow)
	if !cfg.Server {
		s.initial = s.window()
	}
	s.greet()
	return s
}

// Feed takes what the peer sent: all of p, of which it keeps nothing, and at
// most one frame that is not whole, 16 KiB, in a copy. An error is always a
// *ConnectionError and the end: the owner writes Output, closes the connection
// and calls Close.
func (s *Session) Feed(p []byte, now time.Time) error {
	if s.err != nil || s.closed {
		return s.err
	}
	s.now = now
	if err := s.feed(p); err != nil {
		s.fail(err.(*ConnectionError))
		return err
	}
	return nil
}

func (s *Session) feed(p []byte) error {
	if s.greets {
		rest, err := s.preface(p)
		if err != nil || s.greets {
			return err
		}
		p = rest
	}
	for len(p) > 0 && !s.closed {
		if s.body.left > 0 {
			rest, err := s.bodyPart(p)
			if err != nil {
				return err
			}
			p = rest
			continue
		}
		frame, rest, err := s.next(p)
		if err != nil {
			return err
		}
		if p = rest; frame == nil {
			continue
		}
		err = s.take(frame)
		// The copy is given up only now: frame may lie in it.
		s.in = nil
		if err != nil {
			return err
		}
	}
	return nil
}

// preface awaits the client's 24 bytes.
func (s *Session) preface(p []byte) (rest []byte, err error) {
	have := len(s.in)
	s.in = append(s.in, p[:min(len(p), len(preface)-have)]...)
	yes, needMore := IsPreface(s.in)
	if !yes && !needMore {
		return nil, fail(http2.ErrCodeProtocol, "no HTTP/2 preface")
	}
	if !yes {
		return nil, nil
	}
	p = p[len(preface)-have:]
	s.in, s.greets = nil, false
	return p, nil
}

const headerLen = 9 // of every frame

// next cuts the next frame off p: all of it, or of DATA as much as tells how
// to read the rest. A frame that is not whole goes to s.in.
func (s *Session) next(p []byte) (frame, rest []byte, err error) {
	if len(s.in) == 0 && len(p) >= headerLen {
		n, err := s.frameLen(p)
		if err != nil {
			return nil, nil, err
		}
		if len(p) >= n {
			return p[:n], p[n:], nil
		}
	}
	if len(s.in) < headerLen {
		k := min(headerLen-len(s.in), len(p))
		s.in = append(s.in, p[:k]...)
		if p = p[k:]; len(s.in) < headerLen {
			return nil, nil, nil
		}
	}
	n, err := s.frameLen(s.in)
	if err != nil {
		return nil, nil, err
	}
	k := min(n-len(s.in), len(p))
	s.in = append(s.in, p[:k]...)
	if p = p[k:]; len(s.in) < n {
		return nil, nil, nil
	}
	return s.in, p, nil
}

// frameLen is how many bytes next is to cut for the frame that begins with h.
func (s *Session) frameLen(h []byte) (int, error) {
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > maxFrame {
		return 0, fail(http2.ErrCodeFrameSize, "frame over 16 KiB")
	}
	if http2.FrameType(h[3]) != http2.FrameData {
		return headerLen + n, nil
	}
	if http2.Flags(h[4]).Has(http2.FlagDataPadded) && n > 0 {
		return headerLen + 1, nil
	}
	return headerLen, nil
}

// take handles a frame cut by next.
func (s *Session) take(frame []byte) error {
	s.frames++
	kind := http2.FrameType(frame[3])
	if !s.hello && (kind != http2.FrameSettings || http2.Flags(frame[4]).Has(http2.FlagSettingsAck)) {
		return fail(http2.ErrCodeProtocol, "first frame is not SETTINGS")
	}
	id := binary.BigEndian.Uint32(frame[5:]) &^ (1 << 31)
	if err := s.inOrder(kind, id); err != nil {
		return err
	}
	if kind == http2.FrameData {
		return s.bodyBegins(frame, id)
	}
	s.pool.frame.Reset(frame)
	f, err := s.pool.framer.ReadFrame()
	if err != nil {
		return s.unreadable(kind, err)
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return s.headers(f)
	case *http2.ContinuationFrame:
		return s.continuation(f)
	case *http2.WindowUpdateFrame:
		return s.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return s.rstStream(f)
	case *http2.SettingsFrame:
		return s.settings(f)
	case *http2.PingFrame:
		return s.ping(f)
	case *http2.GoAwayFrame:
		return s.goAway(f)
	case *http2.PriorityFrame:
		return s.priority(f)
	case *http2.PushPromiseFrame:
		// We told the endpoint not to; a client must never.
		return fail(http2.ErrCodeProtocol, "PUSH_PROMISE")
	}
	return s.chatter() // of unknown type: ignored
}

// inOrder sees to it that nothing comes between the frames of a header block.
func (s *Session) inOrder(kind http2.FrameType, id uint32) error {
	if s.block.id == 0 {
		if kind == http2.FrameContinuation {
			return fail(http2.ErrCodeProtocol, "CONTINUATION of nothing")
		}
		return nil
	}
	if kind != http2.FrameContinuation || id != s.block.id {
		return fail(http2.ErrCodeProtocol, "header block interrupted")
	}
	return nil
}

// unreadable says what a frame that the framer refused leads to.
func (s *Session) unreadable(kind http2.FrameType, err error) error {
	switch err := err.(type) {
	case http2.StreamError:
		// A header block that is not decoded leaves the tables out of step.
		if kind == http2.FrameHeaders || s.idle(err.StreamID) {
			return fail(err.Code, "frame against the protocol")
		}
		return s.streamError(err.StreamID, err.Code)
	case http2.ConnectionError:
		return fail(http2.ErrCode(err), "frame against the protocol")
	}
	// What is left is a frame too short for what its flags promise.
	return fail(http2.ErrCodeFrameSize, "frame too short")
}

// fail tells the peer that the connection is over.
func (s *Session) fail(err *ConnectionError) {
	s.err = err
	s.in = nil
	s.appendGoAway(min(s.lastPeer, s.lastTake), err.Code, err.Reason)
}

// Close says that the connection is over, by whichever side: every stream that
// is open is reported as Lost, and nothing happens any more. The owner calls
// it once, whatever was the reason, and again when a report panicked.
func (s *Session) Close() {
	if s.closed && len(s.streams) == 0 {
		return
	}
	s.closed = true
	for _, st := range s.streams {
		cause := Cause{Code: http2.ErrCodeInternal, Lost: true, Unsent: s.written+uint64(s.outSent) <= st.begun}
		s.retire(st)
		s.handler.Reset(st, cause)
	}
	s.pool.putBuffer(s.out)
	s.out, s.outSent, s.in, s.block.p = nil, 0, nil, nil
}

// Unfinished is a number for what the peer has begun and not finished, a header
// block, a frame that is not DATA or, until its SETTINGS, the connection; 0 is
// nothing. Who takes too long over one is to be told so by TooSlow.
func (s *Session) Unfinished() uint64 {
	switch {
	case s.block.id != 0:
		return s.block.number
	case len(s.in) > 0 || !s.hello:
		return s.frames + 1
	}
	return 0
}

// TooSlow ends the session as an error in what the peer sent does, but for the
// return from Feed.
func (s *Session) TooSlow() {
	if !s.mute() {
		s.fail(&ConnectionError{Code: http2.ErrCodeEnhanceYourCalm, Reason: "frame or header block takes too long"})
	}
}

// Streams is how many are open.
func (s *Session) Streams() int { return len(s.streams) }

// Closing reports that no stream can be opened here any more, on either side's
// word. A client may still open some until it has read the last GOAWAY.
func (s *Session) Closing() bool {
	return s.away || s.err != nil || s.closed || s.drain > 0 || s.nextID > maxWindow
}

// Finished reports that nothing comes any more that was not to be lost: once
// Output is written, the owner closes. After Shutdown a client's requests are
// under way to us until the GOAWAY that counts them.
func (s *Session) Finished() bool {
	switch {
	case s.err != nil || s.closed:
		return true
	case len(s.streams) > 0:
		return false
	case s.cfg.Server:
		return s.away || s.drain == drainFinal
	}
	return s.Closing()
}

// Room is how many more streams Open would open.
func (s *Session) Room() int {
	if s.cfg.Server || s.Closing() {
		return 0
	}
	return max(0, s.Limit()-len(s.streams))
}

// Limit is how many streams may be open at once. Towards an endpoint that has
// not said how many it takes it is one: a single request goes out without
// waiting, and no crowd is sent where most would be refused.
func (s *Session) Limit() int {
	if !s.cfg.Server && !s.hello {
		return 1
	}
	return min(s.cfg.MaxStreams, int(s.peerStreams))
}

// Greeted reports that the peer's SETTINGS have come.
func (s *Session) Greeted() bool { return s.hello }

// How far Shutdown has come.
const (
	drainAsked = iota + 1 // a GOAWAY that excludes nothing, and a PING behind it
	drainFinal            // a GOAWAY with the last stream
)

// drainPing is the payload of the PING behind the first GOAWAY: its echo says
// that the peer has read it, so that nothing more is under way to us.
var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// Shutdown asks the peer to open no more streams and lets those that are open
// end. A client is first sent a GOAWAY that excludes nothing, and when it has
// surely read it the one with the last stream, so that no request under way is
// lost (RFC 9113 6.8). Called again, for a client that does not answer, it
// sends that one at once.
func (s *Session) Shutdown() {
	if s.err != nil || s.closed || s.drain == drainFinal {
		return
	}
	if s.cfg.Server && s.drain == 0 {
		s.drain = drainAsked
		s.appendGoAway(maxWindow, http2.ErrCodeNo, "")
		s.appendPing(drainPing, false)
		return
	}
	s.drain = drainFinal
	s.lastTake = s.lastPeer
	s.appendGoAway(s.lastPeer, http2.ErrCodeNo, "")
}
