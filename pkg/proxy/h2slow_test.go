package proxy

import (
	"net"
	"testing"

	"golang.org/x/net/http2"

	"connectd/pkg/lb"
)

// A beginning of the preface is a head like any other: it takes its time once.
func TestSlowPreface(t *testing.T) {
	for _, head := range []string{"P", "PR", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "PUT"} {
		w := newWorld(t, serve(t, named("one")))
		c := w.dial()
		c.send(head)
		w.seen(len(head))
		w.pass(headTimeout)
		if r, _ := c.response("GET"); r.StatusCode != 408 {
			t.Errorf("%q: got %d", head, r.StatusCode)
		}
	}
}

// A preface without the SETTINGS that belong to it is one, too.
func TestPrefaceAlone(t *testing.T) {
	w := newWorld(t, serve(t, named("one")))
	w.change(func(h *lb.HTTP) { h.Protocol = lb.AppHTTP2 })
	c := &bareH2{bareConn: w.dial()}
	c.send(http2.ClientPreface)
	c.fr = http2.NewFramer(c.Conn, c.r)
	w.known(c)
	w.unfinished()
	w.pass(headTimeout)
	c.hears("goaway 0 ENHANCE_YOUR_CALM", "end")
}

// A beginning of the preface, and the end of the connection.
func TestHalfPreface(t *testing.T) {
	w := newWorld(t, serve(t, named("one")))
	c := w.dial()
	c.send("PRI * HT")
	c.did(c.Conn.(*net.TCPConn).CloseWrite())
	if err := c.closed(); err != nil {
		t.Error(err)
	}
}

// A frame or a header block that was begun is to be finished, whatever else
// the connection does; what is finished in time starts no clock.
func TestHTTP2SlowHead(t *testing.T) {
	half := func(c *bareH2, id uint32) (rest []byte) {
		b := c.block("GET", "/")
		c.did(c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:2], EndStream: true}))
		return b[2:]
	}
	for name, begin := range map[string]func(c *bareH2){
		"HEADERS without END_HEADERS": func(c *bareH2) { half(c, 3) },
		"and some of CONTINUATION": func(c *bareH2) {
			half(c, 3)
			c.did(c.fr.WriteContinuation(3, false, nil))
			c.send("\x00\x00")
		},
		"half a frame":          func(c *bareH2) { c.send("\x00\x00\x08\x06\x00\x00\x00\x00\x00abcd") },
		"half a frame's header": func(c *bareH2) { c.send("\x00\x00") },
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := newH2World(t, named("one"))
			c := w.dialH2()
			rest := half(c, 1)
			w.unfinished()
			w.pass(headTimeout / 2)
			c.did(c.fr.WriteContinuation(1, true, rest))
			c.hears("1: 200")
			begin(c)
			w.unfinished()
			w.pass(headTimeout / 2) // counts from its own beginning
			w.unfinished()
			w.pass(headTimeout / 2)
			c.hears("goaway 1 ENHANCE_YOUR_CALM", "end")
			if n := w.p.Stats().Refusals[reasonSlow]; n != 1 {
				t.Errorf("%d counted", n)
			}
		})
	}
}
