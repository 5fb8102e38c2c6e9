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
	StreamID     uint32         // HTTP/2
	GRPCStatus   int            // negative: none
	Tries        int
}

const timeFormat = "2006-01-02T15:04:05.000Z"

// Append appends an entry's line, with its newline. The fields and their order
// are Envoy's as Service Connect configures them; where a request took more
// than one try a last field says how many, which readers of Service Connect's
// lines skip.
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
	dst = append(dst, e.Protocol...)
	dst = append(dst, `" `...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
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
	if e.Tries > 1 {
		dst = append(dst, " tries="...)
		dst = strconv.AppendInt(dst, int64(e.Tries), 10)
	}
	return append(dst, '\n')
}

func appendJSON(dst []byte, c lb.AccessLog, e *Entry) []byte {
	dst = append(dst, `{"start_time":"`...)
	dst = e.Start.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `","method":`...)
	dst = quotedOrNull(dst, e.Method)
	dst = append(dst, `,"path":`...)
	dst = quotedOrNull(dst, e.path(c))
	dst = append(dst, `,"protocol":"`...)
	dst = append(dst, e.Protocol...)
	dst = append(dst, `","response_code":`...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = append(dst, `,"bytes_received":`...)
	dst = strconv.AppendInt(dst, e.Received, 10)
	dst = append(dst, `,"bytes_sent":`...)
	dst = strconv.AppendInt(dst, e.Sent, 10)
	if e.Kind == lb.AppHTTP {
		dst = append(dst, `,"duration_ms":`...)
	} else {
		dst = append(dst, `,"duration":`...)
	}
	dst = strconv.AppendInt(dst, e.Duration.Milliseconds(), 10)
	dst = append(dst, `,"upstream_service_time":`...)
	if e.UpstreamTime < 0 {
		dst = append(dst, "null"...)
	} else {
		// A string, for Envoy takes it from a header.
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, e.UpstreamTime.Milliseconds(), 10)
		dst = append(dst, '"')
	}
	for _, f := range [...]struct {
		key   string
		value []byte
	}{
		{`,"forwarded_for":`, e.ForwardedFor}, {`,"user_agent":`, e.UserAgent},
		{`,"request_id":`, e.RequestID}, {`,"authority":`, e.Authority},
	} {
		dst = append(dst, f.key...)
		dst = quotedOrNull(dst, f.value)
	}
	dst = append(dst, `,"upstream_host":`...)
	if e.UpstreamHost.IsValid() {
		dst = append(dst, '"')
		dst = e.UpstreamHost.AppendTo(dst)
		dst = append(dst, '"')
	} else {
		dst = append(dst, "null"...)
	}
	if e.Kind != lb.AppHTTP {
		dst = append(dst, `,"stream_id":`...)
		dst = strconv.AppendUint(dst, uint64(e.StreamID), 10)
	}
	if e.Kind == lb.AppGRPC {
		dst = append(dst, `,"grpc_status":`...)
		if e.GRPCStatus < 0 {
			dst = append(dst, "null"...)
		} else {
			dst = strconv.AppendInt(dst, int64(e.GRPCStatus), 10)
		}
	}
	if e.Tries > 1 {
		dst = append(dst, `,"tries":`...)
		dst = strconv.AppendInt(dst, int64(e.Tries), 10)
	}
	return append(dst, "}\n"...)
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

func textOr(dst, text []byte) []byte {
	if len(text) == 0 {
		return append(dst, '-')
	}
	return escape(dst, text)
}

func quotedOrNull(dst, text []byte) []byte {
	if len(text) == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = escape(dst, text)
	return append(dst, '"')
}

const hex = "0123456789abcdef"

// escape writes text as the inside of a JSON string, in both formats: one line,
// whatever a client sends.
func escape(dst, text []byte) []byte {
	for len(text) > 0 {
		b := text[0]
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < ' ' || b == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		case b < utf8.RuneSelf:
			dst = append(dst, b)
		default:
			r, n := utf8.DecodeRune(text)
			// Line separators end a line for some readers.
			if r == utf8.RuneError && n == 1 || r == '\u2028' || r == '\u2029' || r == '\u0085' {
				dst = append(dst, "\ufffd"...)
			} else {
				dst = append(dst, text[:n]...)
			}
			text = text[n:]
			continue
		}
		text = text[1:]
	}
	return dst
}
