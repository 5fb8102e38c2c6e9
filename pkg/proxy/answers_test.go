package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// scripted serves each connection with what it sends once a whole head came.
func scripted(tb testing.TB, answer string) (address string, requests *atomic.Int64) {
	tb.Helper()
	requests = &atomic.Int64{}
	return raw(tb, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			requests.Add(1)
			if _, err := io.WriteString(c, answer); err != nil || answer == "" {
				return
			}
		}
	}), requests
}

// What an endpoint answers, and what becomes of it.
func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, request, answer string
		status                int
		body                  string
		reason                string
	}{
		{"until close", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", 503, "", reasonReset},
		{"head", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, "", ""},
		{"204", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", ""},
		{"304", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, "", ""},
		{"chunks", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", 200, "abc", ""},
		{"interim first", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", ""},
		{"no HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-x\r\n\r\n", 502, "", reasonMalformed},
		{"two lengths", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 502, "", reasonMalformed},
		{"one length twice", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 200, "a", ""},
		{"204 with chunks", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, "", ""},
		{"another protocol that nobody asked for", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 502, "", reasonMalformed},
		{"bad first chunk", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 502, "", reasonMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address, _ := scripted(t, tc.answer)
			w := newWorld(t, address)
			c := w.dial()
			for range 2 { // the connection is good for more
				c.send(tc.request)
				method, _, _ := strings.Cut(tc.request, " ")
				r, err := http.ReadResponse(c.r, &http.Request{Method: method})
				for err == nil && r.StatusCode < 200 {
					r, err = http.ReadResponse(c.r, &http.Request{Method: method})
				}
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(r.Body)
				if r.StatusCode != tc.status || tc.reason == "" && string(b) != tc.body || r.Header.Get("X-Connectd-Reason") != tc.reason {
					t.Fatalf("got %d %q (%s)", r.StatusCode, b, r.Header.Get("X-Connectd-Reason"))
				}
			}
		})
	}
}

// A body that its endpoint cuts off is a reset, never a short but well-formed
// response.
func TestCutBody(t *testing.T) {
	for _, head := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		address := raw(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n%s\r\n\r\n5\r\nab", head)
		})
		w := newWorld(t, address)
		c := w.dial()
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		r, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r.Body); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", head, err)
		}
	}
}

// HTTP/1.0 clients get no chunks, and are kept only if they ask.
func TestHTTP10(t *testing.T) {
	address, _ := scripted(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
	w := newWorld(t, address)
	c := w.dial()
	c.send("GET / HTTP/1.0\r\n\r\n")
	if r, body := c.response("GET"); body != "abcde" || len(r.TransferEncoding) > 0 {
		t.Errorf("got %q, encoded %v", body, r.TransferEncoding)
	}
	if err := c.closed(); err != nil {
		t.Error(err)
	}
	address, _ = scripted(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	w.publish(address)
	c = w.dial()
	for range 3 {
		c.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		if _, body := c.response("GET"); body != "ok" {
			t.Errorf("got %q", body)
		}
	}
}

// The client sends its body only after 100 Continue, which comes from the
// endpoint.
func TestContinue(t *testing.T) {
	w := newWorld(t, serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if r, err := http.ReadResponse(c.r, nil); err != nil || r.StatusCode != 100 {
		t.Fatalf("got %v (%v)", r, err)
	}
	c.send("body")
	if _, body := c.response("POST"); body != "body" {
		t.Errorf("got %q", body)
	}
}

// An answer to a request that is still being sent goes out at once.
func TestEarlyAnswer(t *testing.T) {
	address := raw(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
	})
	w := newWorld(t, address)
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000))
	r, body := c.response("POST")
	if r.StatusCode != 413 || body != "big" || !r.Close {
		t.Errorf("got %d %q, close %v", r.StatusCode, body, r.Close)
	}
	if err := c.closed(); err != nil {
		t.Error(err)
	}
}

// Both directions of a body stream at once.
func TestFullDuplex(t *testing.T) {
	w := newWorld(t, raw(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
		io.Copy(c, r.Body)
	}))
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n")
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"ping", "pong"} {
		c.send(part)
		got := make([]byte, 4)
		if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != part {
			t.Fatalf("got %q (%v), want %q", got, err, part)
		}
	}
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t, raw(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil || r.Header.Get("Upgrade") != "echo" || r.Header.Get("Connection") != "upgrade" {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
		io.Copy(c, br)
	}))
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
	r, err := http.ReadResponse(c.r, nil)
	if err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "echo" {
		t.Fatalf("got %v (%v)", r, err)
	}
	c.send("second")
	c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c.r); string(b) != "hellofirstsecond" || err != nil {
		t.Errorf("got %q (%v)", b, err)
	}
}

// The statuses of a response are the same for all protocols: 100 to 599
// (RFC 9110 15).
func TestStatusRange(t *testing.T) {
	both(t, func(t *testing.T, protocol lb.AppProtocol) {
		address := serveAs(t, protocol, func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.URL.Path[1:])
			w.WriteHeader(status)
		})
		w := newWorld(t, address)
		w.change(func(h *lb.HTTP) { h.Protocol = protocol }, address)
		c := w.speaks(protocol)
		for status, want := range map[int]int{200: 200, 299: 299, 499: 499, 599: 599, 600: 502, 999: 502} {
			r, err := c.Get(w.url(fmt.Sprint("/", status)))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode != want {
				t.Errorf("%d is answered as %d, want %d", status, r.StatusCode, want)
			}
		}
	})
}

// Trailers arrive, of requests and of responses, however the message was cut
// up and kept.
func TestTrailers(t *testing.T) {
	seen := make(chan string, 1)
	address := raw(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				seen <- err.Error()
				return
			}
			seen <- fmt.Sprint(len(b), " ", r.Trailer)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n3\r\nabc\r\n"+
				"0\r\nX-Sum: 6\r\n")
			if r.Header.Get("Slow") != "" {
				c.(*net.TCPConn).SetNoDelay(true)
				time.Sleep(5 * time.Millisecond) // so that it is likely to come in two
			}
			io.WriteString(c, "X-More: y\r\n\r\n")
		}
	})
	w := newWorld(t, address)
	c := w.dial()
	head := "PUT / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check, X-Last\r\n"
	for _, parts := range [][]string{
		{"\r\n3\r\nabc\r\n0\r\nX-Check: ok\r\nX-Last: z\r\n\r\n"},
		{"Slow: 1\r\n\r\n3\r\nabc\r\n", "0\r\nX-Check: ok\r\nX-", "Last: z\r\n\r\n"},
		{"\r\n", "20000\r\n" + strings.Repeat("x", 0x20000), "\r\n0\r\nX-Check: ok\r\nX-Last: z\r\n\r\n"}, // more than is kept
	} {
		c.send(head)
		size := 3
		for i, part := range parts {
			if i > 0 {
				time.Sleep(5 * time.Millisecond)
			}
			c.send(part)
			size = max(size, strings.Count(part, "x"))
		}
		r, body := c.response("PUT")
		if got, want := <-seen, fmt.Sprint(size, " map[X-Check:[ok] X-Last:[z]]"); got != want {
			t.Errorf("the endpoint got %s, want %s", got, want)
		}
		if got := fmt.Sprint(body, " ", r.Trailer); got != "abc map[X-More:[y] X-Sum:[6]]" {
			t.Errorf("the client got %s", got)
		}
	}
}
