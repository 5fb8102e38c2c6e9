package http1

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// Bodies with their data; the empty want of a bad one says nothing.
var chunkedBodies = []struct {
	name, body, want string
	ok               bool
}{
	{"two chunks", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", true},
	{"empty", "0\r\n\r\n", "", true},
	{"upper and lower case", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", true},
	{"leading zeros", "0003\r\nabc\r\n000\r\n\r\n", "abc", true},
	{"extension", "3;a=b;c=\"d\\\"e\"\r\nabc\r\n0;x\r\n\r\n", "abc", true},
	{"space before extension", "3 ;a\r\nabc\r\n0\r\n\r\n", "", false},
	{"trailers", "3\r\nabc\r\n0\r\nX: y\r\nZ:\r\n\r\n", "abc", true},
	{"no size", "\r\nabc\r\n0\r\n\r\n", "", false},
	{"hex prefix", "0x3\r\nabc\r\n0\r\n\r\n", "", false},
	{"sign", "+3\r\nabc\r\n0\r\n\r\n", "", false},
	{"leading space", " 3\r\nabc\r\n0\r\n\r\n", "", false},
	{"trailing space", "3 \r\nabc\r\n0\r\n\r\n", "", false},
	{"underscore", "1_0\r\nabc\r\n0\r\n\r\n", "", false},
	{"huge size", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n", "", false},
	{"bare LF after size", "3\nabc\r\n0\r\n\r\n", "", false},
	{"bare CR after size", "3\rabc\r\n0\r\n\r\n", "", false},
	{"no CRLF after data", "3\r\nabcd\r\n0\r\n\r\n", "", false},
	{"bare LF after data", "3\r\nabc\n0\r\n\r\n", "", false},
	{"bare LF in extension", "3;a\nb\r\nabc\r\n0\r\n\r\n", "", false},
	{"CRLF in a quoted extension", "3;a=\"b\r\nc\"\r\nabc\r\n0\r\n\r\n", "", false},
	{"long extension", "3;" + strings.Repeat("a", 2000) + "\r\nabc\r\n0\r\n\r\n", "", false},
	{"folded trailer", "0\r\nX: y\r\n z\r\n\r\n", "", false},
	{"trailer without name", "0\r\n: y\r\n\r\n", "", false},
	{"trailer with space before colon", "0\r\nX : y\r\n\r\n", "", false},
	{"length in trailers", "0\r\nContent-Length: 3\r\n\r\n", "", false},
	{"encoding in trailers", "0\r\ntransfer-encoding: chunked\r\n\r\n", "", false},
	{"host in trailers", "0\r\nHost: a\r\n\r\n", "", false},
	{"long trailers", "0\r\n" + strings.Repeat("X: y\r\n", 4000) + "\r\n", "", false},
	{"bare LF at the end", "0\r\n\n", "", false},
}

func TestChunked(t *testing.T) {
	for _, tc := range chunkedBodies {
		// Cut anywhere, it is the same.
		for cut := range len(tc.body) + 1 {
			if cut > 64 && cut%97 != 0 {
				continue
			}
			var scan, decode Chunked
			var got []byte
			n, data, done := 0, int64(0), false
			ok := true
			for _, part := range []string{tc.body[:cut], tc.body[cut:] + "next"} {
				if done {
					break
				}
				k, d, end, err := scan.Scan([]byte(part))
				n, data, done = n+k, data+d, end
				var again int
				var err2 error
				got, again, end, err2 = decode.Decode(got, []byte(part))
				if again != k || end != done || (err == nil) != (err2 == nil) {
					t.Fatalf("%s: Scan and Decode disagree", tc.name)
				}
				if err != nil {
					ok = false
					break
				}
			}
			switch {
			case ok != tc.ok || ok && !done:
				t.Fatalf("%s: cut at %d: good %v, done %v", tc.name, cut, ok, done)
			case ok && (string(got) != tc.want || data != int64(len(tc.want)) || n != len(tc.body)):
				t.Fatalf("%s: cut at %d: data %q (%d) in %d bytes, want %q in %d", tc.name, cut, got, data, n, tc.want, len(tc.body))
			}
		}
	}
}

// Decode may write where it reads.
func TestDecodeInPlace(t *testing.T) {
	buf := []byte("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
	var c Chunked
	out, _, done, err := c.Decode(buf[:0], buf)
	if string(out) != "abcde" || !done || err != nil {
		t.Errorf("got %q, %v, %v", out, done, err)
	}
}

func FuzzChunked(f *testing.F) {
	for _, tc := range chunkedBodies {
		f.Add([]byte(tc.body), 3)
	}
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		var whole Chunked
		got, n, done, err := whole.Decode(nil, body)
		if err != nil || !done {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body[:n])))
		if err != nil || !bytes.Equal(got, theirs) {
			t.Errorf("%q: data %q for us, %q for net/http (%v)", body[:n], got, theirs, err)
		}
		cut = min(max(cut, 0), n)
		var parts Chunked
		first, k, early, err := parts.Decode(nil, body[:cut])
		if err != nil || k != cut && !early {
			t.Fatalf("%q: refused when cut at %d: %v", body, cut, err)
		}
		if !early {
			first, _, early, err = parts.Decode(first, body[cut:])
		}
		if err != nil || !early || !bytes.Equal(first, got) {
			t.Errorf("%q: data %q when cut at %d, %q whole (%v)", body, first, cut, got, err)
		}
	})
}
