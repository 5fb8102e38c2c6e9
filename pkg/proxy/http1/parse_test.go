package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const browser = "GET /a/b?c=d HTTP/1.1\r\nHost: orders\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html,application/xhtml+xml\r\n" +
	"Accept-Language: en\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\nX-Forwarded-For: 192.0.2.1\r\n" +
	"X-Request-Id: 5f0c\r\nCache-Control: no-cache\r\n\r\n"

// Heads that must be refused, each because somebody could read them otherwise.
var refused = []struct {
	name, head string
	status     int
}{
	{"length and encoding", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"encoding and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400},
	{"the same length twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", 400},
	{"signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", 400},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
	{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", 400},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400},
	{"length with space inside", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", 400},
	{"two encodings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"chunked not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400},
	{"identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501},
	{"unknown encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
	{"vertical tab before chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", 400},
	{"encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"bare LF in the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
	{"bare LF in a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", 400},
	{"bare CR before LF", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n", 400},
	{"folded value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400},
	{"folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"space before colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\n", 400},
	{"tab before colon", "GET / HTTP/1.1\r\nHost: a\r\nX\t: 3\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400},
	{"name that is no token", "GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400},
	{"NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x00: ab\r\n\r\n", 400},
	{"escape in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x1bb\r\n\r\n", 400},
	{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
	{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
	{"host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
	{"two spaces in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"leading space", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"no version", "GET /\r\nHost: a\r\n\r\n", 400},
	{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
	{"long version", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\n", 505},
	{"HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505},
	{"byte above ASCII in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"https target", "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"absolute target without a host", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
	{"method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"unknown expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417},
	{"Connection names the length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: content-length\r\n\r\n", 400},
	{"Connection names the host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, host\r\n\r\n", 400},
	{"Connection that is no list", "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", 400},
	{"Connection names very many", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("a,", maxOptions+1) + "\r\n\r\n", 400},
	{"octal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\n", 400},
	{"Connection names the encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n\r\n", 400},
	{"upgrade with a body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n", 400},
	{"too many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", maxFields) + "\r\n", 431},
}

func TestRefused(t *testing.T) {
	for _, tc := range refused {
		var m Message
		err := m.ParseRequest([]byte(tc.head))
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		} else if err.Status != tc.status {
			t.Errorf("%s: %d (%s), want %d", tc.name, err.Status, err.Reason, tc.status)
		}
	}
}

// What endpoints get of requests.
func TestAppendRequest(t *testing.T) {
	edit := &RequestEdit{ForwardedFor: []byte("10.0.0.2"), RequestID: []byte("id"), Authority: []byte("orders.prod")}
	const added = "x-forwarded-for: 10.0.0.2\r\nx-forwarded-proto: http\r\nx-request-id: id\r\n"
	for _, tc := range []struct{ name, head, want string }{
		{"plain", "GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n" + added},
		{"white space around values", "GET /a HTTP/1.1\r\nHost:\ta \r\nX:   y\t\r\nZ:\r\n\r\n", "GET /a HTTP/1.1\r\nHost:\ta\r\nX:   y\r\nZ:\r\n" + added},
		{"an empty line first", "\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a HTTP/1.1\r\nHost: a\r\n" + added},
		{"no host in HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.1\r\nhost: orders.prod\r\n" + added},
		{"absolute target", "GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y HTTP/1.1\r\nhost: b:80\r\n" + added},
		{"absolute target without path", "GET http://b?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?y HTTP/1.1\r\nhost: b\r\n" + added},
		{"options of the server", "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nhost: b\r\n" + added},
		{"fields for this hop", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-this\r\nX-This: 1\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\nUpgrade: b\r\nX: y\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n" + added},
		{"trailers are welcome", "GET / HTTP/1.1\r\nTE: gzip, trailers\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added + "connection: te\r\nte: trailers\r\n"},
		{"upgrade", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + added + "connection: upgrade\r\nupgrade: websocket\r\n"},
		{"upgrade to HTTP/2", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2, or else another", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, H2C\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2 first", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c ,websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2 of a version", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c/1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2 by its full name", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2 in another line", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to HTTP/2 with a body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, x\r\nContent-Length: 3\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + added},
		{"upgrade to nothing", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: ,\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n" + added},
		{"upgrade to several", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2cx/1\r\nUpgrade: y\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\n" + added + "connection: upgrade\r\nupgrade: websocket, h2cx/1\r\nupgrade: y\r\n"},
		{"chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\nTrailer: x\r\n" + added + "transfer-encoding: chunked\r\n"},
		{"forwarded before", "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Request-Id: own\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Request-Id: own\r\nx-forwarded-for: 1.1.1.1, 10.0.0.2\r\n"},
	} {
		var m Message
		if err := m.ParseRequest([]byte(tc.head)); err != nil {
			t.Errorf("%s: %s", tc.name, err)
			continue
		}
		if got := string(m.AppendRequest(nil, []byte(tc.head), edit)); got != tc.want+"\r\n" {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestResponse(t *testing.T) {
	for _, tc := range []struct {
		name, head string
		to         Method
		want       Framing // -1 in status: refused
		ok         bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Get, Length, true},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n", Get, UntilClose, true},
		{"no reason", "HTTP/1.1 200\r\n\r\n", Get, UntilClose, true},
		{"empty reason", "HTTP/1.1 200 \r\n\r\n", Get, UntilClose, true},
		{"to HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Head, NoBody, true},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", Get, NoBody, true},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", Get, NoBody, true},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Get, Chunks, true},
		{"HTTP/1.0 with chunks", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Get, 0, false},
		{"both", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", Get, 0, false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Get, 0, false},
		{"no length first", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n", Get, 0, false},
		{"the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Get, Length, true},
		{"the same length in other digits", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\n", Get, 0, false},
		{"the same length in a list", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n", Get, 0, false},
		{"a length twice, and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Get, 0, false},
		{"status 599", "HTTP/1.1 599 OK\r\nContent-Length: 3\r\n\r\n", Get, Length, true},
		{"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Get, 0, false},
		{"status 600", "HTTP/1.1 600 OK\r\n\r\n", Get, 0, false},
		{"status 099", "HTTP/1.1 099 OK\r\n\r\n", Get, 0, false},
		{"no status", "HTTP/1.1\r\n\r\n", Get, 0, false},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", Get, 0, false},
		{"folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Get, 0, false},
		{"request", browser, Get, 0, false},
	} {
		var m Message
		err := m.ParseResponse([]byte(tc.head))
		switch {
		case (err == nil) != tc.ok:
			t.Errorf("%s: %v", tc.name, err)
		case tc.ok && m.ResponseBody(tc.to) != tc.want:
			t.Errorf("%s: framing %d, want %d", tc.name, m.ResponseBody(tc.to), tc.want)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	head := []byte("HTTP/1.0 200 Fine\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nServer: s\r\nContent-Length: 3\r\n\r\n")
	for _, tc := range []struct {
		edit ResponseEdit
		want string
	}{
		{ResponseEdit{}, ""},
		{ResponseEdit{Close: true}, "connection: close\r\n"},
		{ResponseEdit{KeepAlive: true}, "connection: keep-alive\r\n"},
	} {
		var m Message
		if err := m.ParseResponse(head); err != nil {
			t.Fatal(err)
		}
		want := "HTTP/1.1 200 Fine\r\nServer: s\r\nContent-Length: 3\r\n" + tc.want + "\r\n"
		if got := string(m.AppendResponse(nil, head, &tc.edit)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What the rules for a status say of fields.
func TestAppendResponseByStatus(t *testing.T) {
	for _, tc := range []struct {
		name, head string
		edit       ResponseEdit
		want       string
	}{
		{"426", "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: TLS/1.0, x\r\nContent-Length: 0\r\n\r\n", ResponseEdit{},
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nconnection: upgrade\r\nupgrade: TLS/1.0, x\r\n"},
		{"426, the last", "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nUpgrade: y\r\nContent-Length: 0\r\n\r\n", ResponseEdit{Close: true},
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nconnection: close, upgrade\r\nupgrade: x\r\nupgrade: y\r\n"},
		{"426 to HTTP/1.0", "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n", ResponseEdit{KeepAlive: true},
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nconnection: keep-alive, upgrade\r\nupgrade: x\r\n"},
		{"426 that does not say to what", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", ResponseEdit{},
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n"},
		{"426 in chunks", "HTTP/1.1 426 Upgrade Required\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseEdit{},
			"HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: x\r\ntransfer-encoding: chunked\r\n"},
		{"an offer with another status", "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", ResponseEdit{},
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"},
		{"204 in chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseEdit{}, "HTTP/1.1 204 No Content\r\n"},
		{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: y\r\n\r\n", ResponseEdit{}, "HTTP/1.1 204 No Content\r\nX: y\r\n"},
		{"103 in chunks", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseEdit{}, "HTTP/1.1 103 Early Hints\r\n"},
		{"304 in chunks", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", ResponseEdit{}, "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n"},
		{"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", ResponseEdit{}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n"},
		{"the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\nContent-Length: 3\r\n\r\n", ResponseEdit{}, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n"},
	} {
		var m Message
		if err := m.ParseResponse([]byte(tc.head)); err != nil {
			t.Errorf("%s: %s", tc.name, err)
			continue
		}
		if got := string(m.AppendResponse(nil, []byte(tc.head), &tc.edit)); got != tc.want+"\r\n" {
			t.Errorf("%s: got\n%q\nwant\n%q", tc.name, got, tc.want+"\r\n")
		}
	}
}

// A head that comes in any pieces is found, and no byte is looked at over and
// over.
func TestFindEnd(t *testing.T) {
	for _, head := range []string{browser, "\r\n" + browser, "GET / HTTP/1.1\n\n", "GET / HTTP/1.1\r\n\n"} {
		whole := head + "rest\r\n\r\n"
		size, from := 0, 0
		for n := range len(whole) + 1 {
			size, from = FindEnd([]byte(whole[:n]), from)
			if size > 0 {
				break
			}
			if n > 2 && from < n-3 {
				t.Fatalf("of %d bytes of %q the search goes on at %d", n, head, from)
			}
		}
		if size != len(head) {
			t.Errorf("%q ends at %d, want %d", head, size, len(head))
		}
	}
}

// The hot path allocates nothing.
func TestNoAllocations(t *testing.T) {
	head := []byte(browser)
	reply := []byte("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nConnection: keep-alive\r\nContent-Length: 6\r\n\r\n")
	var m, r Message
	dst := make([]byte, 0, 4096)
	edit, back := &RequestEdit{ForwardedFor: []byte("10.0.0.2")}, &ResponseEdit{}
	if n := testing.AllocsPerRun(100, func() {
		if m.ParseRequest(head) != nil || r.ParseResponse(reply) != nil {
			t.Fatal("refused")
		}
		dst = m.AppendRequest(dst[:0], head, edit)
		dst = r.AppendResponse(dst[:0], reply, back)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHead(b *testing.B) {
	head := []byte(browser)
	var m Message
	dst := make([]byte, 0, 4096)
	edit := &RequestEdit{ForwardedFor: []byte("10.0.0.2")}
	b.ReportAllocs()
	for b.Loop() {
		FindEnd(head, 0)
		if err := m.ParseRequest(head); err != nil {
			b.Fatal(err)
		}
		dst = m.AppendRequest(dst[:0], head, edit)
	}
}

// sameRequest compares what we read of a head, and what an endpoint reads of
// what we make of it, with what net/http reads.
func sameRequest(head []byte, m *Message) error {
	theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(head), "0\r\n\r\n"...))))
	if err != nil {
		return fmt.Errorf("net/http refuses it: %w", err)
	}
	defer theirs.Body.Close()
	out := m.AppendRequest(nil, head, &RequestEdit{ForwardedFor: []byte("10.0.0.2"), RequestID: []byte("id"), Authority: []byte("orders")})
	var again Message
	if err := again.ParseRequest(out); err != nil && err != errManyFields { // ours are added
		return fmt.Errorf("we refuse what we wrote, %.300q: %w", out, err)
	}
	forwarded, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(bytes.Clone(out), "0\r\n\r\n"...))))
	if err != nil {
		return fmt.Errorf("net/http refuses what we wrote, %.300q: %w", out, err)
	}
	defer forwarded.Body.Close()
	switch {
	case theirs.Method != string(m.MethodName.Of(head)) || forwarded.Method != theirs.Method:
		return fmt.Errorf("method %q, then %q", theirs.Method, forwarded.Method)
	case forwarded.URL.Path != theirs.URL.Path && theirs.URL.Path != "" || forwarded.URL.RawQuery != theirs.URL.RawQuery:
		return fmt.Errorf("target %q, then %q", theirs.URL, forwarded.URL)
	case forwarded.Host != theirs.Host && theirs.Host != "":
		return fmt.Errorf("host %q, then %q", theirs.Host, forwarded.Host)
	case forwarded.ContentLength != theirs.ContentLength:
		return fmt.Errorf("length %d, then %d", theirs.ContentLength, forwarded.ContentLength)
	case (m.RequestBody() == Chunks) != (theirs.ContentLength < 0), m.RequestBody() == Length && m.ContentLength != theirs.ContentLength:
		return fmt.Errorf("body %d of %d for us, %d for net/http", m.RequestBody(), m.ContentLength, theirs.ContentLength)
	}
	return nil
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(browser))
	for _, tc := range refused {
		f.Add([]byte(tc.head))
	}
	f.Add([]byte("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("POST http://a:1/b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		size, _ := FindEnd(data, 0)
		var m Message
		if size == 0 || m.ParseRequest(data[:size]) != nil {
			return
		}
		// net/http looks into the target, whose escapes are the application's.
		if _, err := url.ParseRequestURI(string(m.path.Of(data))); err != nil && !m.path.Empty() {
			return
		}
		if err := sameRequest(data[:size], &m); err != nil {
			t.Errorf("%.300q: %s", data[:size], err)
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 404\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		size, _ := FindEnd(data, 0)
		var m Message
		if size == 0 || m.ParseResponse(data[:size]) != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data[:size])), &http.Request{Method: "GET"})
		if err != nil {
			t.Fatalf("%q: net/http refuses it: %s", data[:size], err)
		}
		theirs.Body.Close()
		if theirs.StatusCode != m.Status {
			t.Errorf("%q: status %d for us, %d for net/http", data[:size], m.Status, theirs.StatusCode)
		}
		if m.ResponseBody(Get) == Length && theirs.ContentLength != m.ContentLength || m.ResponseBody(Get) == Chunks && theirs.ContentLength >= 0 {
			t.Errorf("%q: length %d for us, %d for net/http", data[:size], m.ContentLength, theirs.ContentLength)
		}
		out := m.AppendResponse(nil, data, &ResponseEdit{})
		var again Message
		if err := again.ParseResponse(out); err != nil || again.Status != m.Status || again.ResponseBody(Get) != m.ResponseBody(Get) {
			t.Errorf("%q: what we wrote reads otherwise (%v): %q", data[:size], err, out)
		}
	})
}
