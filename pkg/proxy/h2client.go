package proxy

import (
	"connectd/pkg/lb"
	"connectd/pkg/proxy/h2"
)

// h2Client is a client's connection from its preface on.
type h2Client struct {
	*h2Conn
	c        *client
	farewell timer  // from the first GOAWAY to the last
	slow     timer  // for what the client has begun to say
	begun    uint64 // which that is, as the session counts
}

// goAwayHTTP1 is SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED (RFC 9113 7).
const goAwayHTTP1 = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x0d"

// speaksHTTP2 looks for the preface of HTTP/2 at a connection's beginning, and
// takes over from HTTP/1 when it is there; maybe says that it may still come.
func (c *client) speaksHTTP2() (yes, maybe bool) {
	if yes, maybe = h2.IsPreface(c.x.req); !yes {
		return false, maybe
	}
	c.timer.stop()
	first := c.x.req
	c.x.req = nil
	c.l.recycle(c.x)
	c.x = nil
	if r := c.l.p.table.Route(c.vip); r != nil && r.HTTP.Protocol == lb.AppHTTP || c.l.p.asksReady(c.vip) {
		c.l.p.refused(reasonNeedsHTTP1)
		c.write([]byte(goAwayHTTP1), false)
		c.closeLingering()
		return true, false
	}
	c.h2 = &h2Client{c: c}
	c.h2.h2Conn = c.l.newH2(&c.sock, h2.Config{Server: true, Refused: c.h2.refused}, c.h2)
	if c.l.p.draining.Load() {
		c.h2.shutdown()
	}
	c.h2.read(first)
	c.l.free.put(first)
	c.armH2()
	return true, false
}

// armH2 starts the clock of a connection without requests.
func (c *client) armH2() {
	if c.h2 == nil || c.h2.over {
		return
	}
	c.timer.stop()
	switch {
	case c.h2.session.Finished():
		c.l.arm(&c.timer, lingerTimeout, c) // for what it may not take of the rest
		c.l.speak(c.h2.session)
	case c.h2.session.Streams() == 0:
		if d := c.idleTimeout(); d > 0 {
			c.l.arm(&c.timer, d, c)
		}
	}
}

// idle is told when a connection has been without requests for too long.
func (h *h2Client) idle() {
	if h.session.Finished() {
		h.end(false)
		return
	}
	h.shutdown()
}

// fed looks at what the client has begun to say and not finished: a head takes
// no longer than HTTP/1's.
func (h *h2Client) fed() {
	if h.session.Finished() {
		h.l.speak(h.session) // writing ends the connection, also when there is nothing to write
		return
	}
	begun := h.session.Unfinished()
	if begun == h.begun {
		return
	}
	if h.begun = begun; begun == 0 {
		h.slow.stop()
		return
	}
	h.l.arm(&h.slow, headTimeout, h)
}

// tooSlow ends the connection, unless it is we who do not read.
func (h *h2Client) tooSlow() {
	if h.session.Blocked() {
		h.l.arm(&h.slow, headTimeout, h)
		return
	}
	h.l.p.refused(reasonSlow)
	h.session.TooSlow()
	h.write()
	h.part()
}

func (h *h2Client) ended() {
	h.stop()
	h.c.close()
}

func (h *h2Client) parted() {
	h.stop()
	h.c.closeLingering()
}

func (h *h2Client) stop() {
	h.farewell.stop()
	h.slow.stop()
}

func (h *h2Client) wrote() {}

func (h *h2Client) cut() { h.end(true) }

// shutdown lets the client know that it should go elsewhere. What it had sent
// by the time it knows is answered: the connection ends with a second GOAWAY,
// for which it need not echo the PING between the two.
func (h *h2Client) shutdown() {
	if h.over || h.session.Closing() {
		return
	}
	h.session.Shutdown()
	h.l.arm(&h.farewell, farewellTimeout, h)
}

func (h *h2Client) expired(t *timer) {
	defer h.survive()
	if t == &h.slow {
		h.tooSlow()
		return
	}
	// Time enough for an echo of the PING.
	h.session.Shutdown()
	h.c.armH2()
}
