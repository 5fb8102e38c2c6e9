package datapath

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// READS times HEAD_BYTES and RESPONSE_BYTES in bpf/lib: what is looked at in a
// segment.
const (
	headBytes     = 8 * 1024
	responseBytes = 8 * 512
)

// firstLines are the tables of bpf/lib/firstline.h, as the programs have them.
type firstLines struct {
	class             [256]uint8
	request, response [32][16]uint8
}

func newFirstLines(tb testing.TB) *firstLines {
	tb.Helper()
	spec, err := loadDirect()
	if err != nil {
		tb.Fatal(err)
	}
	t := new(firstLines)
	for name, to := range map[string]any{
		directVarByteClass: &t.class, directVarRequestNext: &t.request, directVarResponseNext: &t.response,
	} {
		if err := spec.Variables[name].Get(to); err != nil {
			tb.Fatalf("read %s: %s", name, err)
		}
	}
	return t
}

// reader is the twin of bpf/lib/http1.h: one connection, read through the same
// tables.
type reader struct {
	*firstLines
	request  directRequestState
	response directResponseState
	status   int
	awaited  bool
	requests int   // begun
	statuses []int // final ones
	leftOut  bool
	preface  bool
}

// sent is what the egress hook does with a segment.
func (r *reader) sent(segment []byte) {
	switch {
	case r.leftOut || r.preface:
		return
	case r.request == directRequestStateQ_NONE || !r.awaited && r.request >= directRequestStateQ_BEGUN:
		r.request = directRequestStateQ_START
	case r.request == directRequestStateQ_BODY:
		r.request = directRequestStateQ_NEXT
	}
	before := r.request
	for _, b := range segment[:min(len(segment), headBytes)] {
		if r.request >= directRequestStateQ_NONE {
			break
		}
		r.request = directRequestState(r.firstLines.request[r.request][r.class[b]])
	}
	if len(segment) > headBytes && r.request < directRequestStateQ_NONE && r.request >= directRequestStateQ_BEGUN {
		r.request = directRequestStateQ_BODY
	}
	if before < directRequestStateQ_BEGUN && r.request >= directRequestStateQ_BEGUN &&
		r.request != directRequestStateQ_NONE && r.request != directRequestStateQ_PREFACE {
		r.requests++
		r.awaited, r.response, r.status = true, directResponseStateR_START, 0
	}
	r.leftOut = r.request == directRequestStateQ_PIPELINED
	r.preface = r.request == directRequestStateQ_PREFACE && r.requests == 0
}

// received is what the ingress hook does with a segment.
func (r *reader) received(segment []byte) {
	if r.leftOut || !r.awaited {
		return
	}
	for _, b := range segment[:min(len(segment), responseBytes)] {
		r.response = directResponseState(r.firstLines.response[r.response][r.class[b]])
		if r.response >= directResponseStateR_DIGIT2 && r.response <= directResponseStateR_END {
			r.status = r.status*10 + int(b&15)
		}
		if r.response == directResponseStateR_BAD {
			break
		}
		if r.response != directResponseStateR_STATUS {
			continue
		}
		if r.status/100 != 1 || r.status == 101 {
			r.statuses = append(r.statuses, r.status)
			r.awaited = false
			r.leftOut = r.status == 101
			return
		}
		r.status, r.response = 0, directResponseStateR_HEAD
	}
	r.leftOut = r.response == directResponseStateR_BAD || len(segment) > responseBytes
}

// cut splits a stream at places that at chooses.
func cut(stream, at []byte) [][]byte {
	var out [][]byte
	for _, n := range at {
		k := min(int(n)%32+1, len(stream))
		if k == 0 {
			break
		}
		out, stream = append(out, stream[:k]), stream[k:]
	}
	if len(stream) > 0 {
		out = append(out, stream)
	}
	return out
}

// The same said in another way, for streams that are one segment.
var (
	requestBegins = regexp.MustCompile(`^[\r\n]*([A-Z]+) [/*h]`)
	requestLine   = regexp.MustCompile(`^([A-Z]+) [/*h][^\x00-\x20\x7f]* HTTP/[01]\.[01]\r?\n`)
	capitals      = regexp.MustCompile(`^[A-Z]+$`)
	statusLine    = regexp.MustCompile(`^HTTP/[01]\.[01] (\d\d\d)[ \r]`)
)

// afterHead is what follows the first head of a stream, ok false if it does not
// end.
func afterHead(stream []byte) (rest []byte, ok bool) {
	for first := true; ; first = false {
		line, next, found := bytes.Cut(stream, []byte("\n"))
		if !found {
			return nil, false
		}
		stream = next
		if empty := len(line) == 0 || string(line) == "\r"; empty && !first {
			return stream, true
		}
	}
}

// secondRequest is the line of a request behind the first one's head.
func secondRequest(stream []byte) (line, method []byte) {
	rest, ok := afterHead(bytes.TrimLeft(stream, "\r\n"))
	if !ok {
		return nil, nil
	}
	m := requestLine.FindSubmatch(bytes.TrimLeft(rest, "\r\n"))
	if m == nil {
		return nil, nil
	}
	return m[0], m[1]
}

// checkRequest holds what is read of a client's first segment against the
// expressions above and net/http, and against any other cut.
func checkRequest(t *testing.T, lines *firstLines, stream, at []byte) {
	whole := &reader{firstLines: lines}
	whole.sent(stream)
	m := requestBegins.FindSubmatch(stream)
	begins := m != nil && !(string(m[1]) == "PRI" && m[0][len(m[0])-1] != '/')
	if begins != (whole.requests == 1) {
		t.Errorf("%q: %d requests, should begin: %v", stream, whole.requests, begins)
	}
	line, method := secondRequest(stream)
	if pipelines := begins && line != nil; pipelines != whole.leftOut {
		t.Errorf("%q: left out: %v, pipelines: %v", stream, whole.leftOut, pipelines)
	}
	parts := &reader{firstLines: lines}
	for _, s := range cut(stream, at) {
		parts.sent(s)
	}
	if begins && (parts.requests != 1 || whole.leftOut && !parts.leftOut) {
		t.Errorf("%q cut at %v: %d requests, left out: %v; whole: left out: %v", stream, at, parts.requests, parts.leftOut, whole.leftOut)
	}

	// net/http skips no empty lines before a request.
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(stream)))
	switch {
	case err != nil:
	case begins && req.Method != string(m[1]):
		t.Errorf("%q: net/http reads the method %q", stream, req.Method)
	case !begins && capitals.MatchString(req.Method) && req.Method != "PRI" && strings.ContainsAny(req.RequestURI[:1], "/*h"):
		t.Errorf("%q: net/http reads %s %s", stream, req.Method, req.RequestURI)
	}
	if !whole.leftOut {
		return
	}
	req, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(append(slices.Clone(line), "Host: s\r\n\r\n"...))))
	if escape := new(url.Error); err != nil && !errors.As(err, &escape) {
		t.Errorf("%q: net/http does not read the second request: %s", line, err)
	} else if err == nil && req.Method != string(method) {
		t.Errorf("%q: net/http reads the method %q", line, req.Method)
	}
}

// checkResponse does the same for what a server answers.
func checkResponse(t *testing.T, lines *firstLines, stream, at []byte) {
	ask := func() *reader {
		r := &reader{firstLines: lines}
		r.sent([]byte("GET / HTTP/1.1\r\n\r\n"))
		return r
	}
	whole, parts := ask(), ask()
	whole.received(stream)
	for _, s := range cut(stream, at) {
		parts.received(s)
	}
	if !slices.Equal(whole.statuses, parts.statuses) {
		t.Errorf("%q cut at %v: %v, whole: %v", stream, at, parts.statuses, whole.statuses)
	}
	var want []int
	for rest, ok := stream, true; ok && want == nil; rest, ok = afterHead(rest) {
		m := statusLine.FindSubmatch(rest)
		if m == nil {
			break
		}
		code, _ := strconv.Atoi(string(m[1]))
		line := append(m[0][:len(m[0])-1:len(m[0])-1], " reason\r\n\r\n"...)
		if res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(line)), nil); err != nil || res.StatusCode != code {
			t.Errorf("%q: net/http reads %v (%v), we %d", line, res, err, code)
		}
		if code/100 != 1 || code == 101 {
			want = []int{code}
		}
	}
	if !slices.Equal(whole.statuses, want) {
		t.Errorf("%q: read %v, want %v", stream, whole.statuses, want)
	}
	// The other way round, for a regular head: net/http is as tolerant as to take "HTTP/1.1  200".
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(stream)), nil)
	if err == nil && statusLine.Match(stream) && res.StatusCode/100 != 1 && !slices.Equal(want, []int{res.StatusCode}) {
		t.Errorf("%q: net/http reads %d, we %v", stream, res.StatusCode, want)
	}
}

var requestSeeds = []string{
	"GET / HTTP/1.1\r\nHost: s\r\n\r\n",
	"\r\nGET / HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.1\nHost: s\n\nGET / HTTP/1.1\n",
	"GET /a HTTP/1.1\r\nHost: s\r\n\r\nPOST /b?c=d HTTP/1.1\r\n",
	"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /",
	"GET /_search HTTP/1.1\r\nContent-Length: 30\r\n\r\n{\"query\":{\"match_all\":{}}}",
	"POST / HTTP/1.1\r\nHost: s\r\n\r\nGET /a HTTP/1.1\" 200 17\n",
	"PROPFIND http://s/ HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI /x HTTP/1.1\r\n\r\n",
	"PR /x HTTP/1.1\r\n\r\n", "P /x HTTP/1.1\r\n\r\n", "PRIX /x HTTP/1.1\r\n\r\n", "get / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "HELLO world", "",
	"GET / HTTP/1.1\r\n\r\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\n\r\n\r\nGET * HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\nGET /\x01 HTTP/1.1\r\n",
	"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.2\r\n", "GET / HTTP/1.1\r\n\r\nGET /\xff HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r \n",
}

var responseSeeds = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.0 404 Not Found\r\n\r\n", "HTTP/1.1 204\r\n\r\n", "HTTP/1.1 599\n\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\n", "HTTP/1.1 100\r\n\r\nHTTP/1.1 200 \r\n\r\n",
	"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 503 No\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
	"HTTP/1.1  200 OK\r\n\r\n", "HTTP/2 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 200\x00OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n",
	"HTTP/0.0 100\n\nHTTP/0.0 000 ", "HTTP/1.1 000 \r\n\r\n", "",
}

// Byte by byte, as the shortest segments, and whole.
func TestFirstLines(t *testing.T) {
	lines := newFirstLines(t)
	for _, s := range requestSeeds {
		checkRequest(t, lines, []byte(s), make([]byte, len(s)))
	}
	for _, s := range responseSeeds {
		checkResponse(t, lines, []byte(s), make([]byte, len(s)))
	}
}

func FuzzFirstLine(f *testing.F) {
	lines := newFirstLines(f)
	for _, s := range requestSeeds {
		f.Add([]byte(s), []byte{0, 3, 1}, false)
	}
	for _, s := range responseSeeds {
		f.Add([]byte(s), []byte{0, 3, 1}, true)
	}
	f.Fuzz(func(t *testing.T, stream, at []byte, response bool) {
		if response {
			checkResponse(t, lines, stream[:min(len(stream), responseBytes)], at)
		} else {
			checkRequest(t, lines, stream[:min(len(stream), headBytes)], at)
		}
	})
}
