package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// rawServer keeps every byte that it gets, and answers each read with a 200.
type rawServer struct {
	mu  sync.Mutex
	got bytes.Buffer
}

func startRaw(h *testutil.Host) *rawServer {
	s := &rawServer{}
	l := h.Listen("tcp", at(h.Addr4(), 8080))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn) // ends with its client's connection, at the latest with the daemon
		}
	}()
	return s
}

func (s *rawServer) serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.got.Write(buf[:n])
		s.mu.Unlock()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
	}
}

// take returns what came since the last time.
func (s *rawServer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.got.Reset()
	return s.got.String()
}

// TestHTTPSmuggling: what two readers might read differently is read by nobody.
func TestHTTPSmuggling(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	h := s.w.Host("a")
	s.servers["a"] = h
	server := startRaw(h)
	s.begin(service("orders", "appProtocol: http", "a"))
	address := s.at80("orders")
	const hidden = "GET /hidden HTTP/1.1\r\nHost: orders\r\n\r\n"
	post := func(fields, body string) string {
		return "POST / HTTP/1.1\r\nHost: orders\r\n" + fields + "\r\n" + body
	}
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"good, the control", post("Content-Length: 4\r\n", "body"), 200},
		{"good chunks, the control", post("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"), 200},
		{"length and chunks", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+hidden), 400},
		{"chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\n"+hidden), 400},
		{"two lengths", post("Content-Length: 0\r\nContent-Length: 44\r\n", hidden), 400},
		{"a list of lengths", post("Content-Length: 0, 44\r\n", hidden), 400},
		{"a length with a sign", post("Content-Length: +4\r\n", "body"), 400},
		{"two codings", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"+hidden), 400},
		{"an unknown coding", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+hidden), 501},
		{"chunked is not the last", post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"+hidden), 400},
		{"a coding by HTTP/1.0", strings.Replace(post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"+hidden), "1.1", "1.0", 1), 400},
		{"space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"+hidden), 400},
		{"a tab in the name", post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"+hidden), 400},
		{"a folded line", post("X-Fold: a\r\n Transfer-Encoding: chunked\r\n", hidden), 400},
		{"bare LF", strings.ReplaceAll(post("Content-Length: 4\r\n", "body"), "\r\n", "\n"), 400},
		{"bare LF in a line", post("X-A: b\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+hidden), 400},
		{"bare CR in a line", post("X-A: b\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+hidden), 400},
		{"NUL in a value", post("X-A: b\x00c\r\n", ""), 400},
		{"two hosts", post("Host: other\r\n", ""), 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"space in the path", "GET /a b HTTP/1.1\r\nHost: orders\r\n\r\n", 400},
		{"HTTP/1.2 and more", "GET / HTTP/1.10\r\nHost: orders\r\n\r\n", 400},
		{"a chunk size with a sign", post("Transfer-Encoding: chunked\r\n", "+4\r\nbody\r\n0\r\n\r\n"), 400},
		{"a chunk size beyond 64 bits", post("Transfer-Encoding: chunked\r\n", "10000000000000004\r\nbody\r\n0\r\n\r\n"), 400},
		{"a chunk longer than it says", post("Transfer-Encoding: chunked\r\n", "2\r\nbody\r\n0\r\n\r\n"), 400},
		{"a chunk that ends in LF", post("Transfer-Encoding: chunked\r\n", "4\nbody\n0\n\n"), 400},
		{"a head of 65 KiB", post("X-A: "+strings.Repeat("a", 65<<10)+"\r\n", ""), 431},
	} {
		server.take()
		conn, err := s.web.Dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, c.request)
		r := bufio.NewReader(conn)
		a, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("%s: %s", c.name, err)
			conn.Close()
			continue
		}
		io.Copy(io.Discard, a.Body)
		if a.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", c.name, a.Status, c.status)
		}
		if got := server.take(); (got != "") != (c.status == 200) {
			t.Errorf("%s: the server got %q", c.name, got)
		}
		if c.status != 200 {
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("%s: the connection goes on: %v", c.name, err)
			}
		}
		conn.Close()
	}
	// In pieces, so that the head has gone out when the body turns bad.
	conn, err := s.web.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, post("Transfer-Encoding: chunked\r\n", "4\r\nbo"))
	var out string
	s.eventually(10*time.Second, func() error {
		if out += server.take(); !strings.Contains(out, "bo") {
			return fmt.Errorf("the server got %q", out)
		}
		return nil
	})
	fmt.Fprint(conn, "dyXX0\r\n\r\n"+hidden)
	io.Copy(io.Discard, conn)
	if out += server.take(); strings.Contains(out, "hidden") || strings.HasSuffix(out, "0\r\n\r\n") {
		t.Errorf("after a chunk that turned out bad the server got %q", out)
	}
}
