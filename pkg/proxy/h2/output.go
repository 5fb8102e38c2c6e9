package h2

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
)

// Output is what is to be written, valid until the next call of any method.
func (s *Session) Output() []byte { return s.out[s.outSent:] }

// Sent says that n bytes of Output were written. Streams that waited for room
// are woken.
func (s *Session) Sent(n int, now time.Time) {
	s.now = now
	if s.outSent += n; s.outSent < len(s.out) {
		// What is left moves down once that is cheaper than what it frees.
		if s.outSent >= len(s.out)/2 && s.outSent >= maxFrame {
			s.written += uint64(s.outSent)
			s.out = s.out[:copy(s.out, s.out[s.outSent:])]
			s.outSent = 0
		}
	} else {
		s.written += uint64(s.outSent)
		s.pool.putBuffer(s.out)
		s.out, s.outSent, s.acks = nil, 0, 0
	}
	// Room in small pieces would make small frames.
	if s.pending() <= maxOutput/2 {
		s.wake()
	}
}

// Blocked asks the owner to read no more from this peer until it has taken
// what waits for it: a client that sends requests and reads no responses.
func (s *Session) Blocked() bool { return s.pending() > maxOutput+outputSlack }

func (s *Session) pending() int { return len(s.out) - s.outSent }

// mute reports that nothing may be said any more.
func (s *Session) mute() bool { return s.closed || s.err != nil }

// grow makes sure that out has room for n more bytes and tells the owner when
// output begins.
func (s *Session) grow(n int) {
	begins := s.pending() == 0
	s.out = s.pool.room(s.out, n)
	if begins {
		s.handler.Flush(s)
	}
}

// appendHeader begins a frame whose payload of n bytes the caller appends.
func (s *Session) appendHeader(kind http2.FrameType, flags http2.Flags, id uint32, n int) {
	s.grow(headerLen + n)
	s.out = append(s.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	s.out = binary.BigEndian.AppendUint32(s.out, id)
}

func (s *Session) appendReset(id uint32, code http2.ErrCode) {
	if s.mute() {
		return
	}
	s.appendHeader(http2.FrameRSTStream, 0, id, 4)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(code))
}

func (s *Session) appendWindowUpdate(id uint32, n int64) {
	if s.mute() {
		return
	}
	s.appendHeader(http2.FrameWindowUpdate, 0, id, 4)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(n))
}

func (s *Session) appendPing(data [8]byte, ack bool) {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	s.appendHeader(http2.FramePing, flags, 0, len(data))
	s.out = append(s.out, data[:]...)
}

func (s *Session) appendSettingsAck() {
	s.appendHeader(http2.FrameSettings, http2.FlagSettingsAck, 0, 0)
}

func (s *Session) appendGoAway(last uint32, code http2.ErrCode, reason string) {
	if s.closed {
		return
	}
	s.appendHeader(http2.FrameGoAway, 0, 0, 8+len(reason))
	s.out = binary.BigEndian.AppendUint32(s.out, last)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(code))
	s.out = append(s.out, reason...)
}

// greet writes the preface, our SETTINGS, and the connection's window.
func (s *Session) greet() {
	set := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(s.initial)},
		{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	}
	if s.cfg.Server {
		set = append(set, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(s.cfg.MaxStreams)})
	} else {
		s.grow(len(preface))
		s.out = append(s.out, preface...)
		set = append(set, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	}
	s.appendHeader(http2.FrameSettings, 0, 0, 6*len(set))
	for _, x := range set {
		s.out = binary.BigEndian.AppendUint16(s.out, uint16(x.ID))
		s.out = binary.BigEndian.AppendUint32(s.out, x.Val)
	}
	if more := s.cfg.ConnWindow - protocolWindow; more > 0 {
		s.appendWindowUpdate(0, int64(more))
	}
}

// appendHeaders writes the header block in the pool as HEADERS and, beyond a
// frame, CONTINUATION.
func (s *Session) appendHeaders(id uint32, end bool) {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	p := s.pool.block.Bytes()
	for first := true; first || len(p) > 0; first = false {
		part := p[:min(len(p), maxFrame)]
		if p = p[len(part):]; len(p) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		s.appendHeader(kind, flags, id, len(part))
		s.out = append(s.out, part...)
		kind, flags = http2.FrameContinuation, 0
	}
	s.pool.block.Reset()
}

// appendData writes one DATA frame.
func (s *Session) appendData(id uint32, p []byte, end bool) {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	s.appendHeader(http2.FrameData, flags, id, len(p))
	s.out = append(s.out, p...)
}
