package http1

import "bytes"

// Error is why a head is refused.
type Error struct {
	Status int    // what a client is to be answered; a response's is 502
	Reason string // short, in the words of the grammar
}

func (e *Error) Error() string { return e.Reason }

var (
	errLine        = &Error{400, "malformed request line"}
	errVersion     = &Error{505, "not HTTP/1"}
	errTarget      = &Error{400, "malformed request target"}
	errConnect     = &Error{405, "CONNECT is not forwarded"}
	errStatusLine  = &Error{502, "malformed status line"}
	errBareLF      = &Error{400, "line does not end in CRLF"}
	errFold        = &Error{400, "folded field line"}
	errFieldName   = &Error{400, "malformed field name"}
	errFieldValue  = &Error{400, "malformed field value"}
	errManyFields  = &Error{431, "too many field lines"}
	errLength      = &Error{400, "malformed Content-Length"}
	errTwoLengths  = &Error{400, "more than one Content-Length"}
	errBothLengths = &Error{400, "Content-Length and Transfer-Encoding"}
	errEncoding    = &Error{501, "Transfer-Encoding is not chunked"}
	errTwoEncoding = &Error{400, "more than one Transfer-Encoding"}
	errOldEncoding = &Error{400, "Transfer-Encoding in HTTP/1.0"}
	errNoHost      = &Error{400, "no Host"}
	errTwoHosts    = &Error{400, "more than one Host"}
	errHost        = &Error{400, "malformed Host"}
	errExpect      = &Error{417, "Expect is not 100-continue"}
	errConnection  = &Error{400, "malformed Connection"}
	errUpgradeBody = &Error{400, "malformed Upgrade"}
)

// ParseRequest reads a request head, which must be the whole of buf as FindEnd
// measured it.
func (m *Message) ParseRequest(buf []byte) *Error {
	m.reset()
	at := 0
	if len(buf) >= 2 && buf[0] == '\r' && buf[1] == '\n' {
		at = 2
	}
	end, next, err := line(buf, at)
	if err != nil {
		return err
	}
	if err := m.requestLine(buf, at, end); err != nil {
		return err
	}
	if err := m.parseFields(buf, next); err != nil {
		return err
	}
	if err := m.checkRequest(buf); err != nil {
		return err
	}
	m.Size = len(buf)
	return nil
}

// ParseResponse reads a response head.
func (m *Message) ParseResponse(buf []byte) *Error {
	m.reset()
	end, next, err := line(buf, 0)
	if err != nil {
		return err
	}
	if err := m.statusLine(buf[:end]); err != nil {
		return err
	}
	if err := m.parseFields(buf, next); err != nil {
		return err
	}
	if m.Minor == 0 && m.Chunked {
		return errOldEncoding
	}
	m.Upgrade = m.Status == 101
	m.Size = len(buf)
	return nil
}

// line returns where the line that begins at at ends, and where the next one
// begins.
func line(buf []byte, at int) (end, next int, err *Error) {
	i := bytes.IndexByte(buf[at:], '\n')
	if i < 1 || buf[at+i-1] != '\r' {
		return 0, 0, errBareLF
	}
	return at + i - 1, at + i + 1, nil
}

func (m *Message) requestLine(buf []byte, at, end int) *Error {
	p := buf[at:end]
	i := bytes.IndexByte(p, ' ')
	if i < 1 || !all(p[:i], isToken) {
		return errLine
	}
	m.MethodName = span(at, at+i)
	m.Method = ParseMethod(p[:i])
	k := bytes.LastIndexByte(p, ' ')
	if k == i {
		return errLine
	}
	if err := m.version(p[k+1:]); err != nil {
		return err
	}
	m.Target = span(at+i+1, at+k)
	return m.target(buf)
}

func (m *Message) version(p []byte) *Error {
	if len(p) != 8 || string(p[:5]) != "HTTP/" || p[6] != '.' || p[5] < '0' || p[5] > '9' || p[7] < '0' || p[7] > '9' {
		return errLine
	}
	if p[5] != '1' {
		return errVersion
	}
	if p[7] != '0' {
		m.Minor = 1
	}
	return nil
}

// target takes apart the request target (RFC 9112 3.2).
func (m *Message) target(buf []byte) *Error {
	p := m.Target.Of(buf)
	switch {
	case m.Method == Connect:
		return errConnect
	case len(p) == 0 || !all(p, isTarget) || bytes.IndexByte(p, '#') >= 0:
		return errTarget
	case p[0] == '/':
		m.path = m.Target
	case len(p) == 1 && p[0] == '*':
		if m.Method != Options {
			return errTarget
		}
		m.path = m.Target
	default:
		return m.absolute(p)
	}
	return nil
}

// absolute reads http://authority/path. Its authority stands in for Host.
func (m *Message) absolute(p []byte) *Error {
	const scheme = "http://"
	if len(p) < len(scheme) || !equalFold(p[:len(scheme)], scheme) {
		return errTarget
	}
	begin := int(m.Target.Start) + len(scheme)
	rest := p[len(scheme):]
	n := bytes.IndexAny(rest, "/?")
	if n < 0 {
		n = len(rest)
	}
	if !validAuthority(rest[:n]) {
		return errTarget
	}
	m.Host = span(begin, begin+n)
	m.path = span(begin+n, int(m.Target.End))
	return nil
}

// validAuthority accepts host[:port], where host is a name, an IPv4 address or
// an IPv6 address in brackets.
func validAuthority(p []byte) bool {
	n := 0
	if len(p) > 0 && p[0] == '[' {
		n = bytes.IndexByte(p, ']')
		if n < 2 {
			return false
		}
		for _, b := range p[1:n] {
			if classes[b]&isHex == 0 && b != ':' && b != '.' {
				return false
			}
		}
		n++
	} else {
		for n < len(p) && classes[p[n]]&isAuthority != 0 {
			n++
		}
		if n == 0 {
			return false
		}
	}
	if n == len(p) {
		return true
	}
	for _, b := range p[n+1:] {
		if b < '0' || b > '9' {
			return false
		}
	}
	return p[n] == ':'
}

func (m *Message) statusLine(p []byte) *Error {
	// HTTP/1.1 200 reason; the space before an absent reason is often left out.
	if len(p) < 12 || p[8] != ' ' || len(p) > 12 && p[12] != ' ' {
		return errStatusLine
	}
	if err := m.version(p[:8]); err != nil {
		return errStatusLine
	}
	for _, b := range p[9:12] {
		if b < '0' || b > '9' {
			return errStatusLine
		}
		m.Status = m.Status*10 + int(b-'0')
	}
	if m.Status < 100 || m.Status > 599 {
		return errStatusLine
	}
	if len(p) > 13 {
		if !all(p[13:], isText) {
			return errStatusLine
		}
		m.reason = span(13, len(p))
	}
	return nil
}

// parseFields reads field lines up to the empty one, which ends buf.
func (m *Message) parseFields(buf []byte, at int) *Error {
	for {
		end, next, err := line(buf, at)
		if err != nil {
			return err
		}
		if end == at {
			if next != len(buf) {
				return errBareLF
			}
			break
		}
		if len(m.fields) == maxFields {
			return errManyFields
		}
		if err := m.field(buf, at, end); err != nil {
			return err
		}
		at = next
	}
	if m.encoded && m.ContentLength >= 0 {
		return errBothLengths
	}
	return m.connectionNames(buf)
}

func (m *Message) field(buf []byte, at, end int) *Error {
	p := buf[at:end]
	if p[0] == ' ' || p[0] == '\t' {
		return errFold
	}
	n := 0
	for n < len(p) && classes[p[n]]&isToken != 0 {
		n++
	}
	if n == 0 || n == len(p) || p[n] != ':' {
		return errFieldName
	}
	begin, stop := n+1, len(p)
	for begin < stop && (p[begin] == ' ' || p[begin] == '\t') {
		begin++
	}
	for stop > begin && (p[stop-1] == ' ' || p[stop-1] == '\t') {
		stop--
	}
	if !all(p[begin:stop], isText) {
		return errFieldValue
	}
	f := field{line: span(at, at+stop), name: span(at, at+n), value: span(at+begin, at+stop), known: recognise(p[:n])}
	if f.known != plain {
		if err := m.understand(&f, p[begin:stop]); err != nil {
			return err
		}
	}
	m.fields = append(m.fields, f)
	return nil
}

func span(start, end int) Span { return Span{uint32(start), uint32(end)} }
