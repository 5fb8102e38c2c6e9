package h2

import (
	"net"
	"testing"
)

// carrier is the forwarder's loop for tests: one session to each endpoint, and
// tries made in turn.
type carrier struct {
	loop      *loop
	fwd       *Forwarder
	pool      *Pool
	endpoints []string
	sessions  map[string]*conn
	next      int
	tries     int // at most, for one exchange
	failures  []Failure
	done      chan result
	cfg       Config // of sessions to endpoints
	waiting   map[*Exchange]bool
}

// result is what is left of an exchange.
type result struct {
	Status, GRPCStatus, Tries int
	Received, Sent            int64
	Reason                    string
	Aborted                   bool
	HasDeadline               bool
}

func newCarrier(t testing.TB, tries int, endpoints ...string) (*carrier, string) {
	c := &carrier{
		loop: newLoop(t), pool: NewPool(), endpoints: endpoints, sessions: map[string]*conn{},
		tries: tries, done: make(chan result, 1000), waiting: map[*Exchange]bool{},
	}
	c.fwd = NewForwarder(c.pool, c, c.loop.flushed)
	addr := c.loop.listen(Config{Server: true, Pool: c.pool}, c.fwd)
	return c, addr.String()
}

func (c *carrier) Request(*Exchange) (Origin, int) {
	return Origin{For: "192.0.2.1", Proto: "http", RequestID: "an-id"}, 0
}

func (c *carrier) Dial(x *Exchange) {
	to := c.endpoints[c.next%len(c.endpoints)]
	c.next++
	if have := c.sessions[to]; have != nil && have.sess.Room() > 0 {
		x.Connected(have.sess)
		return
	}
	c.waiting[x] = true
	go func() {
		nc, err := net.Dial("tcp", to)
		c.loop.do(func() {
			if !c.waiting[x] {
				if err == nil {
					nc.Close()
				}
				return
			}
			delete(c.waiting, x)
			if err != nil {
				x.Failed(ConnectFailed)
				return
			}
			cfg := c.cfg
			cfg.Pool = c.pool
			made := c.loop.serve(nc, cfg, c.fwd)
			c.loop.t.Cleanup(func() { nc.Close() })
			c.sessions[to] = made
			made.onEnd = func() {
				if c.sessions[to] == made {
					delete(c.sessions, to)
				}
			}
			x.Connected(made.sess)
		})
	}()
}

func (c *carrier) Abandon(x *Exchange) { delete(c.waiting, x) }

func (c *carrier) Judge(x *Exchange, f Failure) bool {
	c.failures = append(c.failures, f)
	return x.Tries < c.tries && x.Replayable()
}

func (c *carrier) Active(*Exchange) {}

func (c *carrier) Done(x *Exchange) {
	r := result{
		Status: x.Status, GRPCStatus: x.GRPCStatus, Tries: x.Tries, Received: x.Received, Sent: x.Sent,
		Reason: x.Reason, Aborted: x.Aborted, HasDeadline: x.HasDeadline,
	}
	select {
	case c.done <- r:
	default:
	}
}
