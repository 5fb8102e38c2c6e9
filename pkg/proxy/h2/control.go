package h2

import (
	"slices"

	"golang.org/x/net/http2"
)

// idle reports whether a stream was never opened, by whoever may open it.
func (s *Session) idle(id uint32) bool {
	if s.cfg.Server {
		return id%2 == 0 || id > s.lastPeer
	}
	return id%2 == 0 || id >= s.nextID
}

// chatter pays for a frame that carries nothing.
func (s *Session) chatter() error {
	if !s.chatterTokens.take(chatterBudget, 1, s.now) {
		return fail(http2.ErrCodeEnhanceYourCalm, "too many frames without data")
	}
	return nil
}

// reconsidered pays for a request that the peer took back, or made us refuse.
func (s *Session) reconsidered() error {
	if s.cfg.Server && !s.resetTokens.take(resetBudget, 1, s.now) {
		return fail(http2.ErrCodeEnhanceYourCalm, "too many streams reset")
	}
	return nil
}

// streamError resets a stream for something the peer did.
func (s *Session) streamError(id uint32, code http2.ErrCode) error {
	s.appendReset(id, code)
	s.remember(id)
	if st := s.streams[id]; st != nil {
		s.retire(st)
		s.handler.Reset(st, Cause{Code: code, Local: true})
	}
	return s.reconsidered()
}

// remember notes a stream that we reset: what the peer sent before it heard
// of it is dropped.
func (s *Session) remember(id uint32) {
	s.resets[s.reset%maxOwnResets] = id
	s.reset++
}

// expected reports whether frames of a closed stream may still be under way.
// Towards an endpoint any may: only we open and abandon streams there.
func (s *Session) expected(id uint32) bool {
	return !s.cfg.Server || id > s.lastTake || slices.Contains(s.resets[:], id)
}

func (s *Session) settings(f *http2.SettingsFrame) error {
	if err := s.chatter(); err != nil {
		return err
	}
	if f.IsAck() {
		return nil
	}
	s.hello = true
	window := s.initialWindow
	err := f.ForeachSetting(func(set http2.Setting) error {
		switch set.ID {
		case http2.SettingHeaderTableSize:
			s.enc.SetMaxDynamicTableSize(set.Val)
		case http2.SettingEnablePush:
			if set.Val > 1 || set.Val == 1 && !s.cfg.Server {
				return fail(http2.ErrCodeProtocol, "bad ENABLE_PUSH")
			}
		case http2.SettingMaxConcurrentStreams:
			s.peerStreams = min(set.Val, maxWindow)
		case http2.SettingInitialWindowSize:
			if set.Val > maxWindow {
				return fail(http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE over 2^31-1")
			}
			window = int64(set.Val)
		case http2.SettingMaxFrameSize:
			if set.Val < maxFrame || set.Val > 1<<24-1 {
				return fail(http2.ErrCodeProtocol, "bad MAX_FRAME_SIZE")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.acknowledge(); err != nil {
		return err
	}
	s.appendSettingsAck()
	return s.resize(window)
}

// resize moves the send window of every stream to a new initial size.
func (s *Session) resize(window int64) error {
	by := window - s.initialWindow
	s.initialWindow = window
	if by == 0 {
		return nil
	}
	for _, st := range s.streams {
		if st.sendWindow += by; st.sendWindow > maxWindow {
			return fail(http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE overflows a stream's window")
		}
		s.unblock(st)
	}
	s.wake()
	return nil
}

// acknowledge counts an answer that will wait in the output.
func (s *Session) acknowledge() error {
	if s.acks++; s.acks > maxAcks {
		return fail(http2.ErrCodeEnhanceYourCalm, "asks and does not read")
	}
	return nil
}

func (s *Session) ping(f *http2.PingFrame) error {
	if f.IsAck() && f.Data == drainPing && s.drain == drainAsked {
		s.Shutdown()
		return nil
	}
	if err := s.chatter(); err != nil || f.IsAck() {
		return err
	}
	if err := s.acknowledge(); err != nil {
		return err
	}
	s.appendPing(f.Data, true)
	return nil
}

func (s *Session) priority(f *http2.PriorityFrame) error {
	if f.StreamDep == f.StreamID {
		return s.streamError(f.StreamID, http2.ErrCodeProtocol)
	}
	return s.chatter()
}

func (s *Session) goAway(f *http2.GoAwayFrame) error {
	if err := s.chatter(); err != nil {
		return err
	}
	s.away = true
	if s.cfg.Server {
		return nil // what it counts are pushes; its requests go on
	}
	for id, st := range s.streams {
		if id > f.LastStreamID {
			s.retire(st)
			s.handler.Reset(st, Cause{Code: f.ErrCode, Unprocessed: true})
		}
	}
	return nil
}

func (s *Session) rstStream(f *http2.RSTStreamFrame) error {
	if s.idle(f.StreamID) {
		return fail(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	st := s.streams[f.StreamID]
	if st == nil {
		return s.chatter()
	}
	s.retire(st)
	s.handler.Reset(st, Cause{Code: f.ErrCode, Unprocessed: f.ErrCode == http2.ErrCodeRefusedStream})
	return s.reconsidered()
}

func (s *Session) windowUpdate(f *http2.WindowUpdateFrame) error {
	if err := s.chatter(); err != nil {
		return err
	}
	if f.StreamID == 0 {
		if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
			return fail(http2.ErrCodeFlowControl, "connection's window over 2^31-1")
		}
		s.wake()
		return nil
	}
	if s.idle(f.StreamID) {
		return fail(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	}
	st := s.streams[f.StreamID]
	if st == nil {
		return nil // closed a moment ago
	}
	if st.sendWindow += int64(f.Increment); st.sendWindow > maxWindow {
		return s.streamError(f.StreamID, http2.ErrCodeFlowControl)
	}
	s.unblock(st)
	s.wake()
	return nil
}
