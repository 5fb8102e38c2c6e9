package h2

import (
	"net"
	"testing"
	"time"
)

// loop is what an epoll loop is to sessions: one goroutine that feeds them and
// writes what they have to say.
type loop struct {
	t     testing.TB
	turns chan func()
	done  chan struct{}
	dirty []*conn
}

func newLoop(t testing.TB) *loop {
	l := &loop{t: t, turns: make(chan func()), done: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case f := <-l.turns:
				f()
				l.flush()
			case <-l.done:
				return
			}
		}
	}()
	t.Cleanup(func() { close(l.done); <-ended })
	return l
}

// do runs f on the loop and waits for it; false after the loop's end.
func (l *loop) do(f func()) bool {
	ran := make(chan struct{})
	select {
	case l.turns <- func() { f(); close(ran) }:
		<-ran
		return true
	case <-l.done:
		return false
	}
}

// conn is a session's connection.
type conn struct {
	loop    *loop
	sess    *Session
	nc      net.Conn
	writes  chan []byte
	writing int // bytes the writer has in hand
	ended   bool
	onEnd   func()
}

// serve puts a session on a connection. On the loop.
func (l *loop) serve(nc net.Conn, cfg Config, h Handler) *conn {
	c := &conn{loop: l, nc: nc, writes: make(chan []byte, 1)}
	c.sess = New(cfg, h)
	c.sess.User = c
	l.dirty = append(l.dirty, c)
	go c.read()
	go c.write()
	return c
}

func (c *conn) read() {
	p := make([]byte, 64<<10)
	for {
		n, err := c.nc.Read(p)
		alive := c.loop.do(func() {
			if c.ended {
				return
			}
			if c.sess.Feed(p[:n], time.Now()) != nil || err != nil {
				c.end()
			}
		})
		if err != nil || !alive {
			return
		}
	}
}

func (c *conn) write() {
	for p := range c.writes {
		n, err := c.nc.Write(p)
		c.loop.do(func() {
			if c.writing = 0; c.ended {
				return
			}
			if err != nil {
				c.end()
				return
			}
			c.sess.Sent(n, time.Now())
			c.loop.dirty = append(c.loop.dirty, c)
		})
	}
}

// end closes after what there is to write is written. On the loop.
func (c *conn) end() {
	if c.ended {
		return
	}
	c.ended = true
	last := append([]byte(nil), c.sess.Output()[c.writing:]...)
	c.sess.Close()
	if c.onEnd != nil {
		c.onEnd()
	}
	close(c.writes)
	go func() {
		c.nc.SetWriteDeadline(time.Now().Add(time.Second))
		c.nc.Write(last)
		c.nc.Close()
	}()
}

// flush hands output to the writers. On the loop.
func (l *loop) flush() {
	for len(l.dirty) > 0 {
		c := l.dirty[len(l.dirty)-1]
		l.dirty = l.dirty[:len(l.dirty)-1]
		if c.ended || c.writing > 0 {
			continue
		}
		if out := c.sess.Output(); len(out) > 0 {
			c.writing = len(out)
			c.writes <- append([]byte(nil), out...)
		} else if c.sess.Finished() {
			c.end()
		}
	}
}

// flushed is the Handler's Flush of every handler on a loop.
func (l *loop) flushed(s *Session) {
	if c, ok := s.User.(*conn); ok {
		l.dirty = append(l.dirty, c)
	}
}
