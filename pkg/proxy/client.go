package proxy

import (
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/http1"
)

// client is one accepted connection. Between requests it has neither buffer
// nor coroutine.
type client struct {
	sock
	l     *loop
	seat  *seat
	task  lb.TaskID
	from  netip.AddrPort // its end as the task's socket has it
	vip   netip.AddrPort // what it connected to
	x     *exchange      // a request on its way in, or in flight; nil between requests
	h2    *h2Client      // HTTP/2 from its preface on
	timer timer

	requests  uint32 // served
	gone      bool
	lingering bool // answered, and waiting for the client to have read it
	lingered  int  // bytes thrown away meanwhile
	unread    int  // bytes that it had not acknowledged when that was looked at last
}

// event is called for what happens between requests and while a head comes in.
func (c *client) event() {
	switch {
	case c.lingering:
		c.linger()
	case c.h2 != nil:
		c.h2.event()
	case c.dead:
		c.close()
	case c.in:
		c.receive()
	}
}

// receive reads a request's head and begins the request when it is complete.
func (c *client) receive() {
	x := c.x
	if x == nil {
		x = c.l.newExchange(c)
		c.x = x
	}
	for c.in {
		if len(x.req) == cap(x.req) {
			x.req = c.l.free.grow(x.req, 2*cap(x.req))
		}
		n, res := c.read(x.req[len(x.req):cap(x.req)])
		if res == resultAgain {
			break
		}
		if res != resultOK {
			c.close()
			return
		}
		fresh := len(x.req) == 0
		x.req = x.req[:len(x.req)+n]
		if c.begins() {
			return
		}
		if fresh {
			c.l.arm(&c.timer, headTimeout, c)
		}
	}
	if len(x.req) == 0 {
		c.rest()
	}
}

// begins starts what the bytes at hand are the beginning of, if it is whole.
func (c *client) begins() bool {
	x := c.x
	if x.first {
		if yes, maybe := c.speaksHTTP2(); yes || maybe {
			return yes
		}
	}
	size, next := http1.FindEnd(x.req, x.scanned)
	if size == 0 {
		x.scanned = next
		if len(x.req) < maxHead {
			return false
		}
		size = tooLarge
	}
	x.size = size
	c.timer.stop()
	c.l.begin(x)
	return true
}

// rest is the state between requests.
func (c *client) rest() {
	if c.x != nil {
		c.l.recycle(c.x)
		c.x = nil
	}
	c.timer.stop()
	if idle := c.idleTimeout(); idle > 0 {
		c.l.arm(&c.timer, idle, c)
	}
}

// expired ends what has taken too long: a head, idleness, lingering.
func (c *client) expired(*timer) {
	switch {
	case c.lingering:
		c.lingers()
	case c.h2 != nil:
		c.h2.idle()
	case c.x != nil && len(c.x.req) > 0:
		c.x.size = len(c.x.req)
		c.x.slow = true
		c.l.begin(c.x)
	default:
		c.close()
	}
}

// closeLingering ends a connection whose client may still be sending: were it
// closed at once, the reset for what comes in could overtake the answer.
func (c *client) closeLingering() {
	if c.dead {
		c.close()
		return
	}
	c.shutdown()
	c.lingering = true
	c.unread = math.MaxInt
	c.l.arm(&c.timer, lingerTimeout, c)
	c.linger()
}

// lingers goes on with it as long as the client gets on with reading.
func (c *client) lingers() {
	unread, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil || unread == 0 || unread >= c.unread {
		c.close()
		return
	}
	c.unread = unread
	c.l.arm(&c.timer, lingerTimeout, c)
}

func (c *client) linger() {
	for c.in {
		n, res := c.read(c.l.scratch)
		if res == resultAgain {
			return
		}
		c.lingered += n
		if res != resultOK || c.lingered > lingerBytes {
			c.close()
			return
		}
	}
	if c.dead {
		c.close()
	}
}

func (c *client) close() {
	c.end(false)
}

func (c *client) end(reset bool) {
	if c.gone {
		return
	}
	c.gone = true
	c.timer.stop()
	if c.x != nil {
		c.l.recycle(c.x)
		c.x = nil
	}
	if reset {
		c.l.reset(&c.sock)
	} else {
		c.l.drop(&c.sock)
	}
	delete(c.l.clients, c)
	c.l.load.Add(-1)
	c.l.p.departed()
}

// finish does what a request has left of its connection.
func (c *client) finish(end ending) {
	switch end {
	case endLinger:
		c.l.recycle(c.x)
		c.x = nil
		c.closeLingering()
	case endReset:
		c.end(true)
	default:
		c.close()
	}
}

// cut ends the connection from outside of its request.
func (c *client) cut() {
	switch {
	case c.lingering:
		c.close()
	case c.h2 != nil:
		c.h2.cut()
	case c.x != nil && c.x.co != nil:
		c.x.halt(stopClosing)
	default:
		c.close()
	}
}

// idleTimeout of the service as it is now; 0 is never.
func (c *client) idleTimeout() time.Duration {
	if r := c.l.p.table.Route(c.vip); r != nil {
		return r.HTTP.IdleTimeout
	}
	return headTimeout
}
