package datapath

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// exchange is what a client sends, in segments of its own, and a server answers.
type exchange struct {
	send   []string
	answer []string
	early  int // the answer comes after so many segments of the request; 0: after all
}

// script is a server that plays its part of exchanges with each client.
func script(exchanges []exchange) func(net.Listener) {
	return scripts(func() []exchange { return exchanges })
}

// scripts is one that asks for its part when a client comes.
func scripts(now func() []exchange) func(net.Listener) {
	play := func(c net.Conn, e exchange) error {
		after := e.early
		if after == 0 {
			after = len(e.send)
		}
		for n, part := range e.send {
			if _, err := io.ReadFull(c, make([]byte, len(part))); err != nil {
				return err
			}
			if n+1 != after {
				continue
			}
			for _, part := range e.answer {
				if _, err := io.WriteString(c, part); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return func(l net.Listener) {
		// A client's FIN is lost if its namespace goes first.
		var open []net.Conn
		defer func() {
			for _, c := range open {
				c.Close()
			}
		}()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open = append(open, c)
			go func() {
				defer c.Close()
				for _, e := range now() {
					if play(c, e) != nil {
						return
					}
				}
				io.Copy(io.Discard, c)
			}()
		}
	}
}

// run plays the client's part. Go sets TCP_NODELAY, so each write is a segment.
func (r *directRig) run(c net.Conn, exchanges []exchange) {
	r.tb.Helper()
	for _, e := range exchanges {
		read := func() {
			want := strings.Join(e.answer, "")
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				r.tb.Fatalf("got %q (%v), want %q", got, err, want)
			}
		}
		for n, part := range e.send {
			if _, err := io.WriteString(c, part); err != nil {
				r.tb.Fatal(err)
			}
			if n+1 == e.early {
				read()
			}
		}
		if e.early == 0 {
			read()
		}
	}
}

// wantSince is what has been counted since then.
func (r *directRig) wantSince(before HTTPCounters, classes [6]uint64, leftOut uint64) {
	r.tb.Helper()
	got := r.counted()
	for i := range got.Classes {
		got.Classes[i] -= before.Classes[i]
	}
	got.LeftOut -= before.LeftOut
	if got.Classes != classes || got.LeftOut != leftOut {
		r.tb.Errorf("counted %v and %d left out, want %v and %d", got.Classes, got.LeftOut, classes, leftOut)
	}
}

func parts(s ...string) []string { return s }

const (
	getHead = "GET /a HTTP/1.1\r\nHost: s\r\n\r\n"
	okHead  = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

// What connections are counted as, by what is on the wire.
func TestDirectWire(t *testing.T) {
	ok := exchange{send: parts(getHead), answer: parts(okHead)}
	post := func(body ...string) exchange {
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: s\r\nContent-Length: %d\r\n\r\n", len(strings.Join(body, "")))
		return exchange{send: append(parts(head), body...), answer: parts(okHead)}
	}
	answers := func(s ...string) exchange { return exchange{send: parts(getHead), answer: s} }
	long := strings.Repeat("x", 3000)
	var now atomic.Pointer[[]exchange]
	r := newDirectRig(t, scripts(func() []exchange { return *now.Load() }))
	for _, tc := range []struct {
		name      string
		exchanges []exchange
		classes   [6]uint64
		leftOut   uint64
	}{
		{"GET with a body", []exchange{
			{send: parts("GET /_search HTTP/1.1\r\nHost: s\r\nContent-Length: 12\r\n\r\n{\"query\":{}}"), answer: parts(okHead)},
			{send: parts("GET /_search HTTP/1.1\r\nHost: s\r\nContent-Length: 12\r\n\r\n", "{\"query\":{}}"), answer: parts(okHead)}, ok,
		}, [6]uint64{2: 3}, 0},
		{"answers without bodies", []exchange{
			{send: parts("HEAD /a HTTP/1.1\r\nHost: s\r\n\r\n"), answer: parts("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")},
			answers("HTTP/1.1 204 No Content\r\n\r\n"), answers("HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"), ok,
		}, [6]uint64{2: 3, 3: 1}, 0},
		{"any method and target", []exchange{
			{send: parts("PROPFIND /a HTTP/1.1\r\nHost: s\r\n\r\n"), answer: parts("HTTP/1.1 207 Multi-Status\r\nContent-Length: 0\r\n\r\n")},
			{send: parts("OPTIONS * HTTP/1.1\r\nHost: s\r\n\r\n"), answer: parts(okHead)},
			{send: parts("GET http://s/a HTTP/1.1\r\nHost: s\r\n\r\n"), answer: parts(okHead)},
			{send: parts("\r\nGET / HTTP/1.0\r\n\r\n"), answer: parts("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")},
			{send: parts("\r\n", getHead), answer: parts(okHead)},
		}, [6]uint64{2: 5}, 0},
		{"bodies that look like requests", []exchange{
			post("GET /a HTTP/1.1\" 200 17\nGET /b HTTP/1.1\" 200 17\n"), post("GET / ", "GET /"), post("POST /", long), post("\r\n\r\n"), ok,
		}, [6]uint64{2: 5}, 0},
		{"bodies of many segments", []exchange{post(long, long, strings.Repeat(long, 400), "GET"), ok}, [6]uint64{2: 2}, 0},
		{"heads over 1 KiB", []exchange{
			{send: parts("GET / HTTP/1.1\r\nCookie: " + long + "\r\n\r\n"), answer: parts(okHead)},
			{send: parts("GET /"+long, long+" HTTP/1.1\r\nHost: s\r\n\r\n"), answer: parts(okHead)}, ok,
			{send: parts("GET / HTTP/1.1\r\nCookie: " + strings.Repeat(long, 5) + "\r\n\r\n"), answer: parts(okHead)}, ok,
		}, [6]uint64{2: 5}, 0},
		{"pipelined behind a head over 1 KiB", []exchange{
			{send: parts("GET / HTTP/1.1\r\nCookie: " + long + "\r\n\r\n" + getHead), answer: parts(okHead + okHead)}, ok,
		}, [6]uint64{}, 1},
		{"interim heads over 512 bytes", []exchange{
			answers("HTTP/1.1 103 Early Hints\r\nLink: <" + long + ">\r\n\r\n" + okHead), ok,
			answers("HTTP/1.1 103 Early Hints\r\nLink: <"+long, long+">\r\n\r\nHTTP/1.1 40", "4 Not Found\r\nContent-Length: 0\r\n\r\n"), ok,
		}, [6]uint64{2: 3, 4: 1}, 0},
		{"interim answers", []exchange{
			answers("HTTP/1.1 100 Continue\r\n\r\n" + okHead),
			answers("HTTP/1.1 100 Con", "tinue\r\n\r", "\nHTTP/1.1", " 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
			answers("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
		}, [6]uint64{2: 1, 4: 1, 5: 1}, 0},
		{"answers before the request's end", []exchange{
			{send: parts("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc", "DEF"), answer: parts(okHead), early: 1}, ok,
			{send: parts("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc", "def"), answer: parts(okHead), early: 1}, ok,
		}, [6]uint64{2: 4}, 0},
		{"bodies that look like answers", []exchange{
			answers("HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n", "HTTP/1.1 500 No\r\n\r\n12345"), ok,
		}, [6]uint64{2: 2}, 0},
		{"Upgrade", []exchange{
			ok, answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), ok, ok,
		}, [6]uint64{1: 1, 2: 1}, 0},
		{"pipelined later", []exchange{ok, ok, {send: parts(getHead + getHead), answer: parts(okHead + okHead)}, ok}, [6]uint64{2: 2}, 1},
		{"pipelined behind a body of its own segment", []exchange{
			{send: parts("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", "abc", getHead), answer: parts(okHead + okHead)},
		}, [6]uint64{}, 1},
		{"pipelined in pieces", []exchange{
			{send: parts("GET /a HTTP/1.1\r\n\r", "\nGE", "T /a HT", "TP/1.1\r\n\r\n"), answer: parts(okHead + okHead)},
		}, [6]uint64{}, 1},
		{"no HTTP answer", []exchange{answers("ICY 200 OK\r\n\r\n"), ok}, [6]uint64{}, 1},
		{"no HTTP", []exchange{
			{send: parts("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + long), answer: parts("\x16\x03\x03" + long)},
			{send: parts("HELLO world\r\n"), answer: parts("+OK\r\n")},
		}, [6]uint64{}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now.Store(&tc.exchanges)
			before := r.counted()
			c := r.dial()
			defer c.Close()
			r.run(c, tc.exchanges)
			r.wantSince(before, tc.classes, tc.leftOut)
		})
	}
}

// Whatever a status line says, and wherever it is wrong, the programs read what
// the tables do, also where they read it at once.
func TestDirectStatusLines(t *testing.T) {
	const line = "HTTP/1.1 200 OK\r\n"
	answers := slices.Clone(responseSeeds)
	for i := range line[:len(line)-2] {
		for _, b := range []byte("\x00\r\n 0129:/") {
			answers = append(answers, line[:i]+string(rune(b))+line[i+1:]+"\r\n")
		}
	}
	lines := newFirstLines(t)
	var now atomic.Pointer[[]exchange]
	r := newDirectRig(t, scripts(func() []exchange { return *now.Load() }))
	for _, answer := range answers {
		if answer == "" {
			continue
		}
		exchanges := []exchange{{send: parts(getHead), answer: parts(answer)}}
		twin := reader{firstLines: lines}
		twin.sent([]byte(getHead))
		twin.received([]byte(answer))
		var classes [6]uint64
		var leftOut uint64
		for _, status := range twin.statuses {
			classes[min(status/100, len(classes))%len(classes)]++ // of no class: other
		}
		if twin.leftOut && twin.statuses == nil {
			leftOut = 1
		}
		now.Store(&exchanges)
		before := r.counted()
		c := r.dial()
		r.run(c, exchanges)
		c.Close()
		if r.wantSince(before, classes, leftOut); t.Failed() {
			t.Fatalf("answer %q", answer)
		}
	}
}

// A request and its answers in two segments each, cut at every byte.
func TestDirectCuts(t *testing.T) {
	const request = "POST /abc HTTP/1.1\r\nHost: s\r\nContent-Length: 3\r\n\r\nabc"
	const response = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
	var exchanges []exchange
	for n := 1; n < len(response); n++ {
		k := min(n, len(request)-1)
		exchanges = append(exchanges, exchange{send: parts(request[:k], request[k:]), answer: parts(response[:n], response[n:])})
	}
	r := newDirectRig(t, script(exchanges))
	r.run(r.dial(), exchanges)
	r.want2("cut", [6]uint64{2: uint64(len(exchanges))}, 0)
}

// The end of a head is found wherever it lies, for the programs skip most of a
// head eight bytes at a time.
func TestDirectHeadEnds(t *testing.T) {
	ends := []string{"\r\n", "\n"}
	var now atomic.Pointer[[]exchange]
	r := newDirectRig(t, scripts(func() []exchange { return *now.Load() }))
	for n := range 48 {
		end := ends[n%2]
		head := "GET / HTTP/1.1" + end + "A: b" + end + "C: " + strings.Repeat("d", n/2) + end + "Host: s" + end + end
		exchanges := []exchange{{send: parts(head), answer: parts(okHead)}, {send: parts(head + getHead), answer: parts(okHead)}}
		now.Store(&exchanges)
		before := r.counted()
		c := r.dial()
		r.run(c, exchanges)
		c.Close()
		if r.wantSince(before, [6]uint64{2: 1}, 1); t.Failed() {
			t.Fatalf("head %q", head)
		}
	}
}
