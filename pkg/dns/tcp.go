package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// acceptPause is how long to wait after a failed accept: the process is out
// of descriptors or memory, and trying again at once would spin.
const acceptPause = 100 * time.Millisecond

// serveTCP accepts connections until the listener is closed.
func (v *server) serveTCP() {
	s := v.seat
	for {
		conn, err := v.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.r.params.Log.Error("accept DNS connection", "task", s.task.Name, "error", err)
			select {
			case <-time.After(acceptPause):
			case <-s.ctx.Done():
			}
			continue
		}
		select {
		case s.streams <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.streams }()
				(&stream{server: v, client: conn}).run()
			})
		default:
			s.r.counters.count(dropped)
			reset(conn)
		}
	}
}

// reset closes a connection so that its peer sees an error, not an end.
func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// stream is one TCP connection of a task. Queries for names of ours are
// answered here; the others go over a connection of our own to the resolver,
// opened with the first of them, and its answers come back byte for byte.
// Answers may overtake one another, as RFC 7766 7 allows.
type stream struct {
	server *server
	client *net.TCPConn

	writeMu  sync.Mutex // one message at a time to the client
	upstream net.Conn   // nil until needed
	relayed  chan struct{}
}

func (c *stream) run() {
	s := c.server.seat
	defer c.client.Close()
	stop := context.AfterFunc(s.ctx, func() { c.client.Close() })
	defer stop()
	defer func() {
		if c.upstream != nil {
			c.upstream.Close()
			<-c.relayed
		}
	}()
	in := bufio.NewReaderSize(c.client, 2048)
	var msg, out []byte
	for {
		c.client.SetReadDeadline(time.Now().Add(s.r.params.Idle))
		var err error
		if msg, err = readMessage(in, msg); err != nil {
			if errors.Is(err, io.EOF) {
				c.finish()
			}
			return
		}
		answer, o, cold := s.handle(msg[2:], out)
		if len(cold) > 0 {
			s.await(cold)
			answer, o, _ = s.decide(msg[2:], out)
		}
		switch {
		case o == forwarded:
			err = c.forward(msg)
		case answer != nil:
			out = answer
			err = c.write(frame(answer))
		}
		if err != nil {
			return
		}
	}
}

// readMessage reads one message with the two bytes of length before it, in
// buf's storage if it is large enough.
func readMessage(r *bufio.Reader, buf []byte) ([]byte, error) {
	head, err := r.Peek(2)
	if err != nil {
		return buf, err
	}
	n := 2 + int(binary.BigEndian.Uint16(head))
	buf = slices.Grow(buf[:0], n)[:n]
	_, err = io.ReadFull(r, buf)
	return buf, err
}

func frame(msg []byte) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg)))
	return append(b, msg...)
}

func (c *stream) write(framed []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.client.SetWriteDeadline(time.Now().Add(c.server.seat.r.params.Idle))
	_, err := c.client.Write(framed)
	return err
}

// forward hands a message, length and all, to the resolver. If that cannot be
// reached the task's connection is reset: the nearest to a failed connect.
func (c *stream) forward(framed []byte) error {
	s := c.server.seat
	err := c.connect()
	if err == nil {
		c.upstream.SetWriteDeadline(time.Now().Add(s.r.params.Idle))
		_, err = c.upstream.Write(framed)
	}
	if err != nil {
		s.r.counters.count(upstreamError)
		reset(c.client)
		return err
	}
	s.r.counters.count(forwarded)
	return nil
}

func (c *stream) connect() error {
	if c.upstream != nil {
		return nil
	}
	s := c.server.seat
	ctx, cancel := context.WithTimeout(s.ctx, s.r.params.Timeout)
	defer cancel()
	conn, err := s.ns.DialMarked(ctx, "tcp", c.server.upstream.String())
	if err != nil {
		return err
	}
	c.upstream, c.relayed = conn, make(chan struct{})
	s.wg.Go(c.relay)
	return nil
}

// relay brings the resolver's answers back until it closes, with which the
// task's connection is closed too, as the task would have seen it.
func (c *stream) relay() {
	defer close(c.relayed)
	in := bufio.NewReaderSize(c.upstream, 2048)
	var msg []byte
	for {
		var err error
		if msg, err = readMessage(in, msg); err != nil {
			c.client.Close()
			return
		}
		if c.write(msg) != nil {
			c.client.Close()
			return
		}
	}
}

// finish waits for the answers still to come after the client has sent its
// last query.
func (c *stream) finish() {
	if c.upstream == nil {
		return
	}
	if half, ok := c.upstream.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	c.upstream.SetReadDeadline(time.Now().Add(c.server.seat.r.params.Idle))
	select {
	case <-c.relayed:
	case <-c.server.seat.ctx.Done():
	}
}
