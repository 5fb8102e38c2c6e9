package proxy

import (
	"runtime/debug"
	"time"

	"connectd/pkg/proxy/h2"
)

// h2Conn is a socket with an HTTP/2 session on it, on either side.
type h2Conn struct {
	l       *loop
	s       *sock
	session *h2.Session
	owner   h2Owner
	queued  bool // in l.flushes
	over    bool
}

// h2Owner is told what becomes of its connection.
type h2Owner interface {
	fed()    // something was read
	wrote()  // something may have been written: a stream may have ended
	ended()  // it is closed
	parted() // all is said, and the socket is the owner's to close
}

func (l *loop) newH2(s *sock, cfg h2.Config, owner h2Owner) *h2Conn {
	c := &h2Conn{l: l, s: s, owner: owner}
	cfg.Pool = l.h2pool
	c.session = h2.New(cfg, l.h2)
	c.session.User = c
	l.speak(c.session) // the greeting
	return c
}

// speak has a session's output written when the turn ends: what many streams
// have said by then goes out at once.
func (l *loop) speak(s *h2.Session) {
	if c, _ := s.User.(*h2Conn); c != nil && !c.queued {
		c.queued = true
		l.flushes = append(l.flushes, c)
	}
}

// flushAll writes what sessions have to say. Writing may make others speak.
func (l *loop) flushAll() {
	for i := 0; i < len(l.flushes); i++ {
		c := l.flushes[i]
		c.queued = false
		c.write()
	}
	clear(l.flushes)
	l.flushes = l.flushes[:0]
}

// event is called for whatever happens to the socket.
func (c *h2Conn) event() {
	if c.s.out {
		c.write()
	}
	if c.s.in && !c.over {
		c.read(nil)
	}
}

// read feeds the session, a turn of bytes at most; first is what was read
// before there was a session.
func (c *h2Conn) read(first []byte) {
	defer c.survive()
	if len(first) > 0 && !c.feed(first) {
		return
	}
	for budget := turnBytes; c.s.in && !c.over; {
		if c.session.Blocked() {
			return // write goes on with it
		}
		if budget <= 0 {
			c.l.later(c)
			return
		}
		n, res := c.s.read(c.l.scratch[:mediumBuffer])
		switch res {
		case resultAgain:
			return
		case resultOK:
		default:
			c.end(false)
			return
		}
		budget -= n
		if !c.feed(c.l.scratch[:n]) {
			return
		}
	}
}

func (c *h2Conn) feed(p []byte) bool {
	if err := c.session.Feed(p, c.l.wall()); err != nil {
		c.l.p.refused(reasonH2)
		c.write() // the GOAWAY that says why
		c.part()
		return false
	}
	if !c.over {
		c.owner.fed()
	}
	return !c.over
}

func (c *h2Conn) write() {
	defer c.survive()
	if c.over {
		return
	}
	blocked := c.session.Blocked()
	for c.s.out {
		p := c.session.Output()
		if len(p) == 0 {
			break
		}
		n, res := c.s.write(p, false)
		if res == resultFailed {
			c.end(false)
			return
		}
		if n > 0 {
			c.session.Sent(n, c.l.wall())
		}
	}
	switch {
	case c.over:
	case c.session.Finished() && len(c.session.Output()) == 0:
		c.part()
	case blocked && c.s.in && !c.session.Blocked():
		c.l.later(c)
	}
	if !c.over {
		c.owner.wrote()
	}
}

// end closes the connection and tells every request on it.
func (c *h2Conn) end(reset bool) {
	if c.over {
		return
	}
	c.over = true
	if reset {
		c.l.reset(c.s)
	} else {
		c.l.drop(c.s)
	}
	c.close()
	c.owner.ended()
}

// part ends the session after its last word, which the peer is yet to read.
func (c *h2Conn) part() {
	if c.over {
		return
	}
	c.over = true
	c.close()
	c.owner.parted()
}

// survive is deferred by what handles a connection: HTTP/2 does not run in
// coroutines, which recover by themselves. A panic costs the connection, not the
// node's traffic.
func (c *h2Conn) survive() {
	if r := recover(); r != nil {
		c.l.tellPanic(r, debug.Stack())
		c.end(true)
	}
}

// close tells every request of the end, also behind one that panics over it.
func (c *h2Conn) close() {
	for n := c.session.Streams(); !c.closes() && n > 0; n-- {
	}
}

func (c *h2Conn) closes() (done bool) {
	defer func() {
		if r := recover(); r != nil {
			c.l.tellPanic(r, debug.Stack())
		}
	}()
	c.session.Close()
	return true
}

// later reads on when the others of the loop have had their turn.
func (l *loop) later(c *h2Conn) { l.reads = append(l.reads, c) }

func (l *loop) readLater() {
	reads := l.reads
	l.reads = l.rereads[:0]
	for i, c := range reads {
		reads[i] = nil
		if !c.over {
			c.read(nil)
		}
	}
	l.rereads = reads
}

// wall is the time for what sessions bound by rate.
func (l *loop) wall() time.Time { return l.epoch.Add(time.Duration(l.now)) }
