package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// What responses may hold. A window is memory that an endpoint may fill, and it
// does when the client reads slower than the endpoint sends. So windows are
// counted, and what came through them until it is taken. While they add up to
// little, a response has Config.StreamWindow. Then it begins with someWindow,
// and gets the rest once its client has taken some. Beyond that it has
// leastWindow each time, as little as a request costs in any case: it bounds
// what many streams hold and stops none, for what was taken comes back at once.
const (
	someWindow  = 32 << 10
	leastWindow = minBuffer

	// MaxHolding is what a loop may hold for slow readers, bytes, beyond which
	// each gets little at a time.
	MaxHolding = 32 << 20
	little     = MaxHolding / 4     // up to it new windows are large
	many       = MaxHolding / 2     // up to it they grow
	tooMany    = MaxHolding * 3 / 4 // beyond it they are small
)

// Held is what responses on the pool's sessions hold until their clients take
// it, bytes.
func (p *Pool) Held() int64 { return p.held }

// Beside counts bytes in that others of the loop hold for slow readers.
func (p *Pool) Beside(others *int64) { p.others = others }

// open is what responses hold, or may come to.
func (p *Pool) open() int64 {
	if p.others != nil {
		return p.reserved + *p.others
	}
	return p.reserved
}

// account counts a response's window, and what it holds, into the pool.
func (st *Stream) account() {
	if st.s.cfg.Server {
		return
	}
	now := st.held
	if !st.gone && !st.remoteEnd {
		now += st.recvWindow
	}
	p := st.s.pool
	p.reserved += now - st.reserved
	p.held += st.held - st.counted
	st.reserved, st.counted = now, st.held
}

// window is what a new response may send at once. It rises only when there is
// half of what made it fall, for the endpoint has to be told.
func (s *Session) window() int64 {
	open := s.pool.open()
	for _, level := range [...]struct{ window, most int64 }{{int64(s.cfg.StreamWindow), little}, {someWindow, tooMany}} {
		if level.window > s.initial {
			level.most /= 2
		}
		if open+level.window <= level.most {
			return level.window
		}
	}
	return leastWindow
}

// regrant gives a response's window back when half of it is used up. What the
// client has not taken counts as used.
func (st *Stream) regrant() {
	s := st.s
	target := int64(leastWindow)
	switch open := s.pool.open(); {
	case open <= many:
		target = int64(s.cfg.StreamWindow)
	case open <= tooMany:
		target = someWindow
	}
	if more := target - st.recvWindow - st.held; more >= target/2 {
		s.appendWindowUpdate(st.ID, more)
		st.recvWindow += more
	}
	st.account()
}

// announce tells the endpoint of another window for new streams, which changes
// those that are open too (RFC 9113 6.9.2). What it would take from them they
// get back, and what it gives they have.
func (s *Session) announce(window int64) {
	by := window - s.initial
	if by == 0 || s.mute() {
		return
	}
	s.initial = window
	s.appendHeader(http2.FrameSettings, 0, 0, 6)
	s.out = binary.BigEndian.AppendUint16(s.out, uint16(http2.SettingInitialWindowSize))
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(window))
	for id, st := range s.streams {
		if by > 0 {
			st.recvWindow += by
			st.account()
		} else if !st.remoteEnd {
			s.appendWindowUpdate(id, -by)
		}
	}
}
