package h2

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"golang.org/x/net/http2/hpack"
)

// What RFC 9113 8.1 to 8.3 call malformed. The checks run before a list is
// handed on, and a stream that fails them is reset: nothing that could be read
// in two ways by the next HTTP/1 server behind an endpoint comes through.

// Pseudo fields seen, as bits.
const (
	pseudoMethod = 1 << iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoStatus
)

func pseudo(name string) int {
	switch name {
	case ":method":
		return pseudoMethod
	case ":scheme":
		return pseudoScheme
	case ":authority":
		return pseudoAuthority
	case ":path":
		return pseudoPath
	case ":status":
		return pseudoStatus
	}
	return 0
}

// checkRequest reports whether fields make a request, and the length that
// content-length declares, -1 for none.
func checkRequest(fields []hpack.HeaderField) (length int64, ok bool) {
	seen, n := 0, 0
	var method, authority, path string
	for ; n < len(fields) && pseudoName(fields[n].Name); n++ {
		f := fields[n]
		bit := pseudo(f.Name)
		if bit == 0 || bit == pseudoStatus || seen&bit != 0 {
			return 0, false
		}
		seen |= bit
		switch bit {
		case pseudoMethod:
			method, ok = f.Value, token(f.Value)
		case pseudoScheme:
			ok = token(f.Value)
		case pseudoAuthority:
			authority, ok = f.Value, host(f.Value)
		case pseudoPath:
			path, ok = f.Value, visible(f.Value)
		}
		if !ok {
			return 0, false
		}
	}
	want := pseudoMethod | pseudoScheme | pseudoPath
	switch {
	case method == "CONNECT":
		if seen != pseudoMethod|pseudoAuthority {
			return 0, false
		}
	case seen&want != want:
		return 0, false
	case path[0] != '/' && (path != "*" || method != "OPTIONS"):
		return 0, false
	}
	return checkFields(fields[n:], authority, true)
}

// checkResponse reports whether fields make a response's head, of 100 to 599 as
// in HTTP/1. 101 does not: HTTP/2 has no Upgrade.
func checkResponse(fields []hpack.HeaderField) (status int, length int64, ok bool) {
	if len(fields) == 0 || fields[0].Name != ":status" || len(fields[0].Value) != 3 {
		return 0, 0, false
	}
	status, err := strconv.Atoi(fields[0].Value)
	if err != nil || status < 100 || status > 599 || status == 101 {
		return 0, 0, false
	}
	length, ok = checkFields(fields[1:], "", false)
	if status == 204 && length > 0 {
		return 0, 0, false
	}
	return status, length, ok
}

// checkTrailers reports whether fields may end a message.
func checkTrailers(fields []hpack.HeaderField) bool {
	_, ok := checkFields(fields, "", false)
	return ok
}

// checkFields checks what stands behind the pseudo fields. authority, unless
// empty, is what a host field must say.
func checkFields(fields []hpack.HeaderField, authority string, request bool) (length int64, ok bool) {
	length = -1
	hosts := 0
	for _, f := range fields {
		if !lowerToken(f.Name) || !plain(f.Value) {
			return 0, false // pseudo fields, too: a colon is no token
		}
		switch f.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return 0, false
		case "te":
			if f.Value != "trailers" {
				return 0, false
			}
		case "host":
			if hosts++; request && (hosts > 1 || !host(f.Value) || authority != "" && f.Value != authority) {
				return 0, false
			}
		case "content-length":
			n, valid := decimal(f.Value)
			if !valid || length >= 0 {
				return 0, false
			}
			length = n
		}
	}
	return length, true
}

func pseudoName(s string) bool { return len(s) > 0 && s[0] == ':' }

// decimal reads digits and nothing else; 18 of them fit in 63 bits.
func decimal(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}

// Classes of characters, as bits.
const (
	isToken = 1 << iota // RFC 9110 5.6.2
	isUpper
	isVisible // no control, no space
	isPlain   // may stand in a field value
)

var classes = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0:
			t[c] |= isToken
		case c >= 'A' && c <= 'Z':
			t[c] |= isToken | isUpper
		}
		if c > ' ' && c != 0x7f {
			t[c] |= isVisible
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			t[c] |= isPlain
		}
	}
	return t
}()

// all reports whether every byte of s is of class want and none of class not.
func all(s string, want, not uint8) bool {
	for i := range len(s) {
		if c := classes[s[i]]; c&want == 0 || c&not != 0 {
			return false
		}
	}
	return true
}

func token(s string) bool      { return s != "" && all(s, isToken, 0) }
func lowerToken(s string) bool { return s != "" && all(s, isToken, isUpper) }
func visible(s string) bool    { return s != "" && all(s, isVisible, 0) }

// plain: no control characters, and no space at either end, which the next
// hop might take away.
func plain(s string) bool {
	if s == "" {
		return true
	}
	first, last := s[0], s[len(s)-1]
	return first != ' ' && first != '\t' && last != ' ' && last != '\t' && all(s, isPlain, 0)
}

// host: a name or address and perhaps a port, without user information.
func host(s string) bool {
	for i := range len(s) {
		if c := s[i]; c == '@' || c == '/' || c == '?' || c == '#' || classes[c]&isVisible == 0 {
			return false
		}
	}
	return true
}

// passing tells fields whose value hardly comes again. Indexed they would push
// those that do out of the table, and cost more than they save.
func passing(f hpack.HeaderField) bool {
	switch f.Name {
	case "x-request-id", "content-length", "date", "etag", "location", "set-cookie",
		"if-none-match", "if-modified-since", "last-modified", "grpc-timeout", "traceparent", "age":
		return true
	}
	// The encoder's own buffer keeps the size of the longest field it saw.
	return len(f.Name)+len(f.Value) > maxTable/2
}

// appendLiteral writes a literal without indexing and without Huffman.
func appendLiteral(b *bytes.Buffer, f hpack.HeaderField) {
	b.WriteByte(0)
	appendString(b, f.Name)
	appendString(b, f.Value)
}

func appendString(b *bytes.Buffer, s string) {
	const prefix = 1<<7 - 1
	if len(s) < prefix {
		b.WriteByte(byte(len(s)))
	} else {
		b.WriteByte(prefix)
		b.Write(binary.AppendUvarint(b.AvailableBuffer(), uint64(len(s)-prefix)))
	}
	b.WriteString(s)
}
