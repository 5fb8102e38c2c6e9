package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// hammer is a load whose client costs little: raw sockets on one epoll, HTTP/1
// written and read by hand. On two cores a client that costs as much as what it
// measures hides half of every difference; net/http's costs several times as
// much as a proxy.
type hammer struct {
	Address     string
	Path        string
	Connections int           // each sends the next request when it has the answer
	Fresh       bool          // a new connection for each request
	For         time.Duration // after it no request is begun; those begun are finished
}

const (
	answerLimit = 5 * time.Second // without any answer: the load failed
	headLimit   = 4 << 10         // of a response
	readSize    = 256 << 10       // of one read of a body
)

// result is what a hammer saw. Requests that warm up are not in it.
type result struct {
	Requests int
	Took     time.Duration
	P50, P99 time.Duration
}

// striker runs a hammer, in two steps: whoever measures looks at clocks between
// them.
type striker struct {
	epoll       int
	to          unix.Sockaddr
	request     []byte
	connections int
	fresh       bool
	last        time.Duration
	until       time.Time // no request is begun after it
	conns       map[int32]*striking
	pending     int // requests without an answer
	took        []time.Duration
	scratch     []byte
}

// striking is one connection. A response is first a head that is read into
// head, then left bytes of body that are read and thrown away.
type striking struct {
	fd    int
	begun time.Time
	head  []byte
	left  int
	body  bool
}

// warm makes the connections and sends one request over each, so that all that
// stands behind them is there before anything is measured.
func (h *hammer) warm() (*striker, error) {
	s, err := newStriker(h)
	if err != nil {
		return nil, err
	}
	for range h.Connections {
		if err = s.open(); err != nil {
			break
		}
	}
	if err == nil {
		err = s.loop()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// run loads, once, and ends the connections.
func (s *striker) run() (result, error) {
	defer s.close()
	s.took = s.took[:0]
	begun := time.Now()
	s.until = begun.Add(s.last)
	for _, c := range slices.Collect(maps.Values(s.conns)) {
		if err := s.send(c); err != nil {
			return result{}, err
		}
	}
	for s.pending < s.connections { // fresh: those that warmed up have ended
		if err := s.open(); err != nil {
			return result{}, err
		}
	}
	if err := s.loop(); err != nil {
		return result{}, err
	}
	return newResult(s.took, time.Since(begun)), nil
}

func newResult(latencies []time.Duration, took time.Duration) result {
	r := result{Requests: len(latencies), Took: took}
	if slices.Sort(latencies); len(latencies) > 0 {
		r.P50, r.P99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	}
	return r
}

func newStriker(h *hammer) (*striker, error) {
	to, err := netip.ParseAddrPort(h.Address)
	if err != nil {
		return nil, err
	}
	s := &striker{
		to:          &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())},
		connections: h.Connections, fresh: h.Fresh, last: h.For,
		conns: map[int32]*striking{}, scratch: make([]byte, readSize), took: make([]time.Duration, 0, 1<<20),
	}
	closing := ""
	if h.Fresh {
		closing = "Connection: close\r\n"
	}
	s.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n%s\r\n", h.Path, closing)
	s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return s, err
}

func (s *striker) close() {
	for _, c := range s.conns {
		unix.Close(c.fd)
	}
	unix.Close(s.epoll)
}

// open makes a connection and sends a request. Its time begins with the
// connect.
func (s *striker) open() error {
	begun := time.Now()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c := &striking{fd: fd, head: make([]byte, 0, headLimit)}
	s.conns[int32(fd)] = c
	if err := unix.Connect(fd, s.to); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		return err
	}
	err = s.send(c)
	c.begun = begun
	return err
}

func (s *striker) send(c *striking) error {
	c.begun, c.head, c.left, c.body = time.Now(), c.head[:0], 0, false
	s.pending++
	n, err := unix.Write(c.fd, s.request)
	if err == nil && n < len(s.request) {
		err = errors.New("a socket buffer without room for one request")
	}
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	return nil
}

// loop reads answers, and sends further requests, until nothing is pending.
func (s *striker) loop() error {
	events := make([]unix.EpollEvent, 256)
	for s.pending > 0 {
		n, err := unix.EpollWait(s.epoll, events, int(answerLimit.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%d requests without an answer after %s", s.pending, answerLimit)
		}
		for _, e := range events[:n] {
			if err := s.readable(s.conns[e.Fd]); err != nil {
				return err
			}
		}
	}
	return nil
}

// readable reads once; epoll tells when there is more.
func (s *striker) readable(c *striking) error {
	into := s.scratch
	if !c.body {
		into = c.head[len(c.head):cap(c.head)]
	}
	n, _, err := unix.Recvfrom(c.fd, into, unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	if err == nil && n == 0 {
		err = errors.New("connection closed within an answer")
	}
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if c.body {
		c.left -= n
	} else if err := c.headRead(n); err != nil {
		return err
	}
	if !c.body || c.left > 0 {
		return nil
	}
	if c.left < 0 {
		return errors.New("read answer: more bytes than its length says")
	}
	return s.answered(c)
}

func (s *striker) answered(c *striking) error {
	now := time.Now()
	s.took = append(s.took, now.Sub(c.begun))
	s.pending--
	more := now.Before(s.until)
	if !s.fresh {
		if more {
			return s.send(c)
		}
		return nil
	}
	delete(s.conns, int32(c.fd))
	unix.Close(c.fd)
	if more {
		return s.open()
	}
	return nil
}

// headRead takes n more bytes that stand behind c.head.
func (c *striking) headRead(n int) error {
	c.head = c.head[:len(c.head)+n]
	end := bytes.Index(c.head, []byte("\r\n\r\n"))
	if end < 0 {
		if len(c.head) == cap(c.head) {
			return errors.New("read answer: its head is too long")
		}
		return nil
	}
	length, err := bodyLength(c.head[:end+2])
	if err != nil {
		return err
	}
	c.body, c.left = true, length-(len(c.head)-end-4)
	return nil
}

// bodyLength is the Content-Length of a response whose status is 200.
func bodyLength(head []byte) (int, error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return 0, fmt.Errorf("answer: %q", line)
	}
	const name = "content-length:"
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
		}
	}
	return 0, errors.New("answer without a content-length")
}
