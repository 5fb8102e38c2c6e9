package proxy

import (
	"connectd/pkg/lb"
	"connectd/pkg/proxy/h2"
)

// h2Client is a client's connection from its preface on.
type h2Client struct {
	*h2Conn
	c *client
}

// goAwayHTTP1 is SETTINGS, and GOAWAY with HTTP_1_1_REQUIRED (RFC 9113 7).
const goAwayHTTP1 = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x0d"

// speaksHTTP2 looks for the preface of HTTP/2 at a connection's beginning, and
// takes over from HTTP/1 when it is there. It is also true while it may still
// become one.
func (c *client) speaksHTTP2() bool {
	yes, more := h2.IsPreface(c.x.req)
	if !yes {
		return more && len(c.x.req) > 2 // "P" and "PR" may become POST or PRI: both wait for more
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
		return true
	}
	c.h2 = &h2Client{c: c}
	c.h2.h2Conn = c.l.newH2(&c.sock, h2.Config{Server: true, Refused: c.l.p.refuse}, c.h2)
	if c.l.p.draining.Load() {
		c.h2.session.Shutdown()
	}
	c.h2.read(first)
	c.l.free.put(first)
	c.armH2()
	return true
}

// armH2 starts the clock of a connection without requests.
func (c *client) armH2() {
	if c.h2 == nil || c.h2.over {
		return
	}
	if d := c.idleTimeout(); d > 0 && c.h2.session.Streams() == 0 {
		c.l.arm(&c.timer, d, c)
	} else {
		c.timer.stop()
	}
}

func (h *h2Client) ended() { h.c.close() }

func (h *h2Client) moved() {}

func (h *h2Client) cut() { h.end(true) }

// shutdown lets the client know that it should go elsewhere.
func (h *h2Client) shutdown() {
	if !h.over {
		h.session.Shutdown()
	}
}
