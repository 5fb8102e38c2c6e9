package h2

import (
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// block is a header block whose frames are arriving.
type block struct {
	id     uint32 // 0: none
	number uint64 // of its first frame
	end    bool   // END_STREAM
	itself bool   // its priority depends on itself
	frames int
	p      []byte
}

func (s *Session) headers(f *http2.HeadersFrame) error {
	b := block{
		id:     f.StreamID,
		number: s.frames,
		end:    f.StreamEnded(),
		itself: f.HasPriority() && f.Priority.StreamDep == f.StreamID,
	}
	if f.HeadersEnded() {
		return s.decode(b, f.HeaderBlockFragment())
	}
	b.p = append(b.p, f.HeaderBlockFragment()...)
	s.block = b
	return nil
}

func (s *Session) continuation(f *http2.ContinuationFrame) error {
	b := &s.block
	p := f.HeaderBlockFragment()
	if b.frames++; b.frames > maxContinuations || len(b.p)+len(p) > maxBlock {
		return fail(http2.ErrCodeEnhanceYourCalm, "header block without end")
	}
	b.p = append(b.p, p...)
	if !f.HeadersEnded() {
		return nil
	}
	whole := *b
	s.block = block{}
	return s.decode(whole, whole.p)
}

// field takes one field from the decoder.
func (s *Session) field(f hpack.HeaderField) {
	if s.list += f.Size(); s.list > maxHeaderList {
		// From here on the decoder only keeps its table in step.
		s.dec.SetEmitEnabled(false)
		return
	}
	s.pool.fields = append(s.pool.fields, f)
}

// decode turns a whole block into fields and hands them on. Whatever becomes
// of the stream, the block is decoded, or the connection's table is out of step.
func (s *Session) decode(b block, p []byte) error {
	s.list = 0
	s.pool.fields = s.pool.fields[:0]
	s.dec.SetEmitEnabled(true)
	_, err := s.dec.Write(p)
	if err == nil {
		err = s.dec.Close()
	}
	if err != nil {
		return fail(http2.ErrCodeCompression, "header block against RFC 7541")
	}
	fields := s.pool.fields
	if s.cfg.Server {
		err = s.fromClient(b, fields)
	} else {
		err = s.fromEndpoint(b, fields)
	}
	clear(fields) // its strings are not ours to keep
	if cap(fields) > maxFreeFields {
		s.pool.fields = nil
	}
	return err
}

// maxFreeFields is the longest list of fields a pool keeps, 40 bytes each.
const maxFreeFields = 1024

func (s *Session) fromClient(b block, fields []hpack.HeaderField) error {
	if b.id%2 == 0 {
		return fail(http2.ErrCodeProtocol, "a client's stream with an even number")
	}
	if st := s.streams[b.id]; st != nil {
		return s.trailers(st, b, fields)
	}
	if b.id <= s.lastPeer {
		if s.expected(b.id) {
			return s.chatter()
		}
		return fail(http2.ErrCodeStreamClosed, "HEADERS on a closed stream")
	}
	s.lastPeer = b.id
	switch {
	case b.id > s.lastTake:
		return s.chatter() // the GOAWAY says so; the client knows it was not taken
	case b.itself:
		return s.streamError(b.id, http2.ErrCodeProtocol)
	case len(s.streams) >= s.cfg.MaxStreams:
		return s.streamError(b.id, http2.ErrCodeRefusedStream)
	case s.list > maxHeaderList:
		return s.tooLarge(b)
	}
	length, ok := checkRequest(fields)
	if !ok || b.end && length > 0 {
		return s.streamError(b.id, http2.ErrCodeProtocol)
	}
	s.chatterTokens.earn(earnedRequest)
	st := s.adopt(b.id)
	st.head, st.length, st.remoteEnd = true, length, b.end
	s.handler.Headers(st, Head, fields, b.end)
	return nil
}

// tooLarge answers a request whose field list is over the bound: 431, here,
// since there is no list to hand on.
func (s *Session) tooLarge(b block) error {
	s.encode([]hpack.HeaderField{
		{Name: ":status", Value: "431"},
		{Name: "content-length", Value: "0"},
		{Name: "x-connectd-reason", Value: ReasonHeadTooLarge},
	})
	s.appendHeaders(b.id, true)
	if s.cfg.Refused != nil {
		s.cfg.Refused(431, ReasonHeadTooLarge)
	}
	if b.end {
		return s.chatter()
	}
	return s.streamError(b.id, http2.ErrCodeNo)
}

func (s *Session) fromEndpoint(b block, fields []hpack.HeaderField) error {
	if s.idle(b.id) {
		return fail(http2.ErrCodeProtocol, "HEADERS on an idle stream")
	}
	st := s.streams[b.id]
	switch {
	case st == nil:
		return s.chatter() // one that we gave up
	case st.head:
		return s.trailers(st, b, fields)
	case b.itself:
		return s.streamError(b.id, http2.ErrCodeProtocol)
	}
	status, length, ok := checkResponse(fields)
	if !ok || s.list > maxHeaderList || b.end && status < 200 {
		return s.streamError(b.id, http2.ErrCodeProtocol)
	}
	if status < 200 {
		s.handler.Headers(st, Informational, fields, false)
		return s.chatter()
	}
	// No body, whatever content-length says: that of HEAD and 304 tells how long
	// it would have been.
	if st.noBody || status == 204 || status == 304 {
		length = 0
	}
	if b.end && length > 0 {
		return s.streamError(b.id, http2.ErrCodeProtocol)
	}
	st.head, st.length = true, length
	if b.end {
		s.remoteEnds(st)
	}
	s.handler.Headers(st, Head, fields, b.end)
	return nil
}

// trailers takes the second field list of a message.
func (s *Session) trailers(st *Stream, b block, fields []hpack.HeaderField) error {
	switch {
	case st.remoteEnd:
		return s.streamError(b.id, http2.ErrCodeStreamClosed)
	case b.itself, !b.end, st.length > 0, s.list > maxHeaderList, !checkTrailers(fields):
		return s.streamError(b.id, http2.ErrCodeProtocol)
	}
	s.remoteEnds(st)
	s.handler.Headers(st, Trailers, fields, true)
	return nil
}

// encode fills the pool's block with fields. Never-indexed ones stay so.
func (s *Session) encode(fields []hpack.HeaderField) {
	s.pool.block.Reset()
	for i, f := range fields {
		// The encoder may have a table size to announce, which stands first.
		if i > 0 && !f.Sensitive && passing(f) {
			appendLiteral(&s.pool.block, f)
			continue
		}
		s.enc.WriteField(f) // to memory: it does not fail
	}
}
