// Package accesslog writes one line for each request, in the formats of Service
// Connect's proxy, without ever keeping a request waiting.
package accesslog

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"connectd/pkg/lb"
)

// Entry is one request. Text that the client chose is escaped when it is
// written; it need only live as long as the call.
type Entry struct {
	Kind         lb.AppProtocol
	Start        time.Time
	Method       []byte
	Path         []byte // with its query
	Protocol     string // "HTTP/1.1"
	Authority    []byte
	UserAgent    []byte
	ForwardedFor []byte
	RequestID    []byte
	Status       int   // 0: the client went away before an answer
	Received     int64 // bytes of the body from the client
	Sent         int64 // bytes of the body to the client
	Duration     time.Duration
	UpstreamTime time.Duration  // until the endpoint's response head; negative: none came
	UpstreamHost netip.AddrPort // zero: no endpoint was tried
	GRPCStatus   int            // negative: none; AppGRPC only
	Tries        int
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// Append appends an entry's line, with its newline. The fields, their order and
// the types of JSON values are those of Envoy under Service Connect's formats
// (docs/configuration.md). Where a request took more than one try a last field
// says how many: readers of Service Connect's lines skip what follows those
// they know.
func Append(dst []byte, c lb.AccessLog, e *Entry) []byte {
	if c.Format == lb.LogJSON {
		return appendJSON(dst, c, e)
	}
	return appendText(dst, c, e)
}

func appendText(dst []byte, c lb.AccessLog, e *Entry) []byte {
	dst = append(dst, '[')
	dst = e.Start.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `] "`...)
	dst = textOr(dst, e.Method)
	dst = append(dst, ' ')
	dst = textOr(dst, e.path(c))
	dst = append(dst, ' ')
	dst = append(dst, e.protocol()...)
	dst = append(dst, `" `...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	if e.Kind == lb.AppGRPC {
		dst = append(dst, ' ')
		dst = appendGRPC(dst, e.GRPCStatus, "-")
	}
	for _, n := range [...]int64{e.Received, e.Sent, e.Duration.Milliseconds()} {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, n, 10)
	}
	dst = append(dst, ' ')
	if e.UpstreamTime < 0 {
		dst = append(dst, '-')
	} else {
		dst = strconv.AppendInt(dst, e.UpstreamTime.Milliseconds(), 10)
	}
	for _, text := range [...][]byte{e.ForwardedFor, e.UserAgent, e.RequestID, e.Authority} {
		dst = append(dst, ` "`...)
		dst = textOr(dst, text)
		dst = append(dst, '"')
	}
	dst = append(dst, ` "`...)
	if e.UpstreamHost.IsValid() {
		dst = e.UpstreamHost.AppendTo(dst)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, '"')
	if e.Kind != lb.AppHTTP {
		dst = append(dst, ` "`...)
		dst = textOr(dst, e.streamID())
		dst = append(dst, '"')
	}
	if e.Tries > 1 {
		dst = append(dst, " tries="...)
		dst = strconv.AppendInt(dst, int64(e.Tries), 10)
	}
	return append(dst, '\n')
}

// path is without its query unless the service says otherwise: queries carry
// secrets.
func (e *Entry) path(c lb.AccessLog) []byte {
	if c.QueryParameters {
		return e.Path
	}
	for i, b := range e.Path {
		if b == '?' {
			return e.Path[:i]
		}
	}
	return e.Path
}

// protocol is "-" when it is not known, in JSON too.
func (e *Entry) protocol() string {
	if e.Protocol == "" {
		return "-"
	}
	return e.Protocol
}

// streamID is Envoy's: not a number of HTTP/2, but what tells the request from
// all others, which is its x-request-id.
func (e *Entry) streamID() []byte { return e.RequestID }

// grpcNames are Envoy's words for the statuses 0 to 16.
var grpcNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated",
}

// appendGRPC writes a status by name, one without a name by number.
func appendGRPC(dst []byte, status int, none string) []byte {
	switch {
	case status < 0:
		return append(dst, none...)
	case status < len(grpcNames):
		return append(dst, grpcNames[status]...)
	}
	return strconv.AppendInt(dst, int64(status), 10)
}

func textOr(dst, text []byte) []byte {
	if len(text) == 0 {
		return append(dst, '-')
	}
	return escape(dst, text)
}

const hex = "0123456789abcdef"

// escape writes text as the inside of a JSON string, in both formats: one line,
// whatever a client sends.
func escape(dst, text []byte) []byte {
	for len(text) > 0 {
		n := plain(text)
		dst, text = append(dst, text[:n]...), text[n:]
		if len(text) == 0 {
			break
		}
		n = 1
		switch b := text[0]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < utf8.RuneSelf:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			var r rune
			r, n = utf8.DecodeRune(text)
			// C1 controls mean something to a terminal, and line separators end
			// a line for some readers.
			if r == utf8.RuneError && n == 1 || r < 0xa0 || r == '\u2028' || r == '\u2029' {
				dst = append(dst, "\ufffd"...)
			} else {
				dst = append(dst, text[:n]...)
			}
		}
		text = text[n:]
	}
	return dst
}

// plain is how much of text can be written as it is: nearly always all of it.
func plain(text []byte) int {
	for i, b := range text {
		if b < ' ' || b >= 0x7f || b == '"' || b == '\\' {
			return i
		}
	}
	return len(text)
}
