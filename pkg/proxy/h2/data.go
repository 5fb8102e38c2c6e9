package h2

import (
	"golang.org/x/net/http2"
)

// body is a DATA frame whose payload is arriving.
type body struct {
	st   *Stream // nil drops it
	left int     // of data and padding
	pad  int     // of left, at its end
	end  bool
}

// bodyBegins takes a DATA frame's header, with the length of the padding if it
// has one.
func (s *Session) bodyBegins(frame []byte, id uint32) error {
	flags := http2.Flags(frame[4])
	n := int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2])
	b := body{left: n, end: flags.Has(http2.FlagDataEndStream)}
	extra := 0 // padding and its length: what nobody will release
	if flags.Has(http2.FlagDataPadded) {
		if n == 0 {
			return fail(http2.ErrCodeFrameSize, "frame too short")
		}
		b.left, b.pad = n-1, int(frame[headerLen])
		if b.pad > b.left {
			return fail(http2.ErrCodeProtocol, "padding longer than its frame")
		}
		extra = 1 + b.pad
	}
	if s.idle(id) {
		return fail(http2.ErrCodeProtocol, "DATA on an idle stream")
	}
	// The peer counts the whole frame, whatever becomes of it.
	if s.recvWindow -= int64(n); s.recvWindow < 0 {
		return fail(http2.ErrCodeFlowControl, "DATA beyond the connection's window")
	}
	s.credit(int64(extra))
	if n == extra && !b.end {
		if err := s.chatter(); err != nil {
			return err
		}
	} else {
		s.chatterTokens.earn(earnedData)
	}
	if err := s.bodyAllowed(&b, id, n, extra); err != nil {
		return err
	}
	s.body = b
	if b.left == 0 || b.left == b.pad {
		s.bodyEnds()
	}
	return nil
}

// bodyAllowed finds the stream of a DATA frame of n bytes, of which extra are
// no data, and checks that it fits. It leaves b.st nil where the data is to be
// dropped.
func (s *Session) bodyAllowed(b *body, id uint32, n, extra int) error {
	st := s.streams[id]
	switch {
	case st == nil && s.expected(id):
		return nil
	case st == nil || st.remoteEnd:
		return s.streamError(id, http2.ErrCodeStreamClosed)
	case !st.head:
		return s.streamError(id, http2.ErrCodeProtocol) // a response that begins with its body
	}
	if st.recvWindow -= int64(n); st.recvWindow < 0 {
		return s.streamError(id, http2.ErrCodeFlowControl)
	}
	if st.length >= 0 {
		st.length -= int64(n - extra)
		if st.length < 0 || b.end && st.length > 0 {
			return s.streamError(id, http2.ErrCodeProtocol) // not what content-length says
		}
	}
	switch {
	case b.end:
	case s.cfg.Server:
		st.credit(int64(extra))
	case n == extra:
		st.regrant() // nothing will be released
	}
	b.st = st
	return nil
}

// bodyPart takes what of p belongs to the DATA frame.
func (s *Session) bodyPart(p []byte) (rest []byte, err error) {
	b := &s.body
	if data := b.left - b.pad; data > 0 {
		part := p[:min(len(p), data)]
		p = p[len(part):]
		b.left -= len(part)
		last := len(part) == data
		st := b.st
		if st == nil {
			s.credit(int64(len(part)))
			return p, nil
		}
		if last && b.end {
			b.st = nil
			s.remoteEnds(st)
		}
		st.held += int64(len(part))
		st.account()
		s.handler.Data(st, part, last && b.end)
		return p, nil
	}
	n := min(len(p), b.left)
	b.left -= n
	b.pad -= n
	return p[n:], nil
}

// bodyEnds is for a frame without data: only its end counts.
func (s *Session) bodyEnds() {
	st := s.body.st
	s.body.st = nil
	if st != nil && s.body.end {
		s.remoteEnds(st)
		s.handler.Data(st, nil, true)
	}
}

// remoteEnds notes that the peer's side is complete.
func (s *Session) remoteEnds(st *Stream) {
	st.remoteEnd = true
	st.account()
	if st.localEnd {
		s.complete(st)
	}
}
