package http1

import "strconv"

// RequestEdit is what a forwarder adds to a request.
type RequestEdit struct {
	ForwardedFor []byte // added at the end of X-Forwarded-For
	RequestID    []byte // X-Request-Id where there is none; nil adds none
	Authority    []byte // Host for an HTTP/1.0 request without one

	// Forwarded is set by AppendRequest: the last X-Forwarded-For of what it
	// appended to, as the endpoint sees it.
	Forwarded Span
}

// AppendRequest appends the head that an endpoint gets: HTTP/1.1 in origin
// form, without the fields for the client's own hop.
func (m *Message) AppendRequest(dst, buf []byte, e *RequestEdit) []byte {
	dst = append(dst, m.MethodName.Of(buf)...)
	dst = append(dst, ' ')
	dst = append(dst, m.Path(buf)...)
	dst = append(dst, " HTTP/1.1\r\n"...)
	hostLine := m.hasHost && m.Target == m.path
	if !hostLine {
		authority := m.Host.Of(buf)
		if m.Host.Empty() {
			authority = e.Authority
		}
		dst = line1(dst, "host: ", authority)
	}
	dst = m.appendFields(dst, buf, !hostLine)
	dst = append(dst, "x-forwarded-for: "...)
	forwarded := len(dst)
	if !m.ForwardedFor.Empty() {
		dst = append(dst, m.ForwardedFor.Of(buf)...)
		dst = append(dst, ", "...)
	}
	dst = append(dst, e.ForwardedFor...)
	e.Forwarded = span(forwarded, len(dst))
	dst = append(dst, "\r\n"...)
	if !m.hasProto {
		dst = append(dst, "x-forwarded-proto: http\r\n"...)
	}
	if m.RequestID.Empty() && e.RequestID != nil {
		dst = line1(dst, "x-request-id: ", e.RequestID)
	}
	dst = m.appendHop(dst, buf, m.Upgrade, m.trailersOK)
	if m.Chunked {
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// Path is the request target in origin form, with its query.
func (m *Message) Path(buf []byte) []byte {
	path := m.path.Of(buf)
	switch {
	case len(path) == 0 && m.Method == Options:
		return []byte("*") // RFC 9112 3.2.4
	case len(path) == 0:
		return []byte("/")
	case path[0] == '?':
		return append([]byte("/"), path...)
	}
	return path
}

// ResponseEdit is what a forwarder says about its own connection.
type ResponseEdit struct {
	Close     bool // the connection ends with this response
	KeepAlive bool // to an HTTP/1.0 client that asked for it: it does not
	Dechunk   bool // the body goes without its chunks
}

// AppendResponse appends the head that the client gets.
func (m *Message) AppendResponse(dst, buf []byte, e *ResponseEdit) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(m.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, m.reason.Of(buf)...)
	dst = append(dst, "\r\n"...)
	dst = m.appendFields(dst, buf, false)
	offers := m.Status == 426 && m.upgrades // to what, it must say (RFC 9110 15.5.22)
	switch {
	case m.Upgrade || offers && !e.Close && !e.KeepAlive:
		dst = append(dst, "connection: upgrade\r\n"...)
	case e.Close && offers:
		dst = append(dst, "connection: close, upgrade\r\n"...)
	case offers:
		dst = append(dst, "connection: keep-alive, upgrade\r\n"...)
	case e.Close:
		dst = append(dst, "connection: close\r\n"...)
	case e.KeepAlive:
		dst = append(dst, "connection: keep-alive\r\n"...)
	}
	if m.Upgrade || offers {
		dst = m.appendUpgrade(dst, buf)
	}
	if m.Chunked && !e.Dechunk && !m.bare() {
		dst = append(dst, "transfer-encoding: chunked\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendFields appends the field lines that are for everybody, neighbours at
// once.
func (m *Message) appendFields(dst, buf []byte, skipHost bool) []byte {
	begin, end := uint32(0), uint32(0)
	for i := range m.fields {
		f := &m.fields[i]
		if f.hop || f.value == m.ForwardedFor && !f.value.Empty() || skipHost && f.known == host {
			continue
		}
		if f.line.Start == end+2 && end > 0 {
			end = f.line.End
			continue
		}
		if end > 0 {
			dst = append(dst, buf[begin:end]...)
			dst = append(dst, "\r\n"...)
		}
		begin, end = f.line.Start, f.line.End
	}
	if end > 0 {
		dst = append(dst, buf[begin:end]...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendHop appends what Connection has to say for the next hop.
func (m *Message) appendHop(dst, buf []byte, up, trailers bool) []byte {
	switch {
	case up && trailers:
		dst = append(dst, "connection: upgrade, te\r\n"...)
	case up:
		dst = append(dst, "connection: upgrade\r\n"...)
	case trailers:
		dst = append(dst, "connection: te\r\n"...)
	}
	if trailers {
		dst = append(dst, "te: trailers\r\n"...)
	}
	if up {
		dst = m.appendUpgrade(dst, buf)
	}
	return dst
}

func (m *Message) appendUpgrade(dst, buf []byte) []byte {
	for i := range m.fields {
		if f := &m.fields[i]; f.known == upgrade {
			dst = line1(dst, "upgrade: ", f.value.Of(buf))
		}
	}
	return dst
}

func line1(dst []byte, name string, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}
