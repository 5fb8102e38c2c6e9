// Package http1 reads and rewrites the heads of HTTP/1 messages and follows
// chunked bodies, for a forwarder: in one pass, without allocating, and so
// strictly that nothing is accepted which another implementation could read
// differently. What could be read two ways is an error (RFC 9112 11.2).
package http1

import "bytes"

// Span is a part of the buffer that a head was parsed from.
type Span struct{ Start, End uint32 }

// Of returns the part.
func (s Span) Of(buf []byte) []byte { return buf[s.Start:s.End] }

// Empty says whether there is nothing, or nothing in it.
func (s Span) Empty() bool { return s.Start == s.End }

const (
	maxFields  = 256 // field lines of a head
	maxOptions = 32  // fields that Connection may name
)

// Method is a request method.
type Method uint8

const (
	Other Method = iota
	Get
	Head
	Post
	Put
	Delete
	Options
	Trace
	Patch
	Connect
)

var methods = [...]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"}

// Idempotent says whether a request may be made twice with the effect of once
// (RFC 9110 9.2.2).
func (m Method) Idempotent() bool {
	switch m {
	case Get, Head, Put, Delete, Options, Trace:
		return true
	}
	return false
}

// ParseMethod finds a method by its name, which is case-sensitive.
func ParseMethod(name []byte) Method {
	for m := Get; m <= Connect; m++ {
		if string(name) == methods[m] {
			return m
		}
	}
	return Other
}

// known are the fields that a forwarder must understand.
type known uint8

const (
	plain known = iota
	connection
	contentLength
	expect
	forwardedFor
	forwardedProto
	host
	keepAlive
	proxyConnection
	requestID
	te
	trailer
	transferEncoding
	upgrade
	userAgent
)

// field is one field line.
type field struct {
	line  Span // name to value
	name  Span
	value Span
	known known
	hop   bool // for one hop only: not passed on
}

// Message is the head of a request or of a response, and what it says of the
// message. Spans are into the buffer that it was parsed from. It is used again
// for the next head.
type Message struct {
	Method     Method
	MethodName Span
	Target     Span  // of a request as it came
	Host       Span  // from the target if that is absolute, or else the Host field
	Minor      uint8 // HTTP/1.Minor: 0, or 1 for all later
	Status     int   // of a response
	Size       int   // of the head in bytes; 0: none was parsed

	ContentLength  int64 // -1: none was given
	Chunked        bool
	Close          bool // Connection: close
	KeepAlive      bool // Connection: keep-alive
	Upgrade        bool // the connection is to become another protocol
	ExpectContinue bool

	RequestID, ForwardedFor, UserAgent Span

	path       Span // origin form of the target
	reason     Span
	fields     []field
	trailersOK bool // TE: trailers
	hasHost    bool
	hasProto   bool
	upgrades   bool // Upgrade names a protocol
	h2c        bool // and one is HTTP/2
	asksUp     bool // Connection: upgrade
	encoded    bool // a Transfer-Encoding field
}

// FindEnd looks for the empty line that ends a head, from on, and returns the
// size of the head with it. 0 says that it is not there yet, and next is where
// to go on when more has come: a head that trickles in costs linear time. One
// empty line before a request line is part of the head (RFC 9112 2.2).
func FindEnd(buf []byte, from int) (size, next int) {
	at := from
	if at == 0 && len(buf) >= 2 && buf[0] == '\r' && buf[1] == '\n' {
		at = 2
	}
	for {
		i := bytes.IndexByte(buf[at:], '\n')
		if i < 0 {
			return 0, max(len(buf)-1, 0)
		}
		at += i + 1
		// Of an empty line the parser sees whether it ends as it should.
		if at < len(buf) && buf[at] == '\n' {
			return at + 1, 0
		}
		if at+1 < len(buf) && buf[at] == '\r' && buf[at+1] == '\n' {
			return at + 2, 0
		}
		if at+1 >= len(buf) {
			return 0, at - 1
		}
	}
}

// reset forgets the message before.
func (m *Message) reset() {
	fields := m.fields[:0]
	*m = Message{fields: fields, ContentLength: -1}
}

// Interim says whether a response is one before the final one. 101 is final:
// what follows it is another protocol.
func (m *Message) Interim() bool { return m.Status < 200 && m.Status != 101 }

// bare says that a response has no body and must not speak of one (RFC 9110
// 8.6, RFC 9112 6.1).
func (m *Message) bare() bool {
	return m.Status == 204 || m.Status > 0 && m.Status < 200
}

// Framing is how a body is delimited.
type Framing uint8

const (
	NoBody Framing = iota
	Length
	Chunks
	UntilClose
)

// RequestBody says how a request's body is delimited.
func (m *Message) RequestBody() Framing {
	switch {
	case m.Chunked:
		return Chunks
	case m.ContentLength > 0:
		return Length
	}
	return NoBody
}

// ResponseBody says how the body of a response to a method is delimited
// (RFC 9112 6.3).
func (m *Message) ResponseBody(to Method) Framing {
	switch {
	case to == Head || m.Status < 200 || m.Status == 204 || m.Status == 304:
		return NoBody
	case m.Chunked:
		return Chunks
	case m.ContentLength >= 0:
		return Length
	}
	return UntilClose
}
