package proxy

import (
	"slices"

	"connectd/pkg/proxy/h2"
	"connectd/pkg/proxy/route"
)

// h2Upstream is an HTTP/2 connection to an endpoint, which requests of all
// clients of a namespace share.
type h2Upstream struct {
	*h2Conn
	sock     sock
	key      poolKey
	endpoint *route.Endpoint
	waiting  []*h2Request // until the connection stands and takes them; not exchanges, which are used anew once they are done
	dialing  bool
	hungUp   bool  // it was us who ended it
	timer    timer // connect, then idleness
}

// h2Session finds a session with room to an endpoint, or begins one. Requests
// wait for a session whose endpoint has not said yet how many it takes, as many
// as its other sessions take.
func (l *loop) h2Session(s *seat, e *route.Endpoint) (*h2Upstream, error) {
	key := poolKey{s, e.ID}
	var pending *h2Upstream
	most := h2PerDial
	for _, u := range l.h2pools[key] {
		switch {
		case u.dialing:
			pending = lighter(u, pending)
		case u.session.Room() > 0:
			return u, nil
		case u.session.Closing():
		case u.session.Greeted():
			most = min(most, max(1, u.session.Limit()))
		default:
			pending = lighter(u, pending)
		}
	}
	if pending != nil && pending.crowd() < most {
		return pending, nil
	}
	return l.h2Dial(key, s, e)
}

func lighter(u, than *h2Upstream) *h2Upstream {
	if than == nil || u.crowd() < than.crowd() {
		return u
	}
	return than
}

// crowd is how many requests are on a connection or wait for it.
func (u *h2Upstream) crowd() int {
	if u.dialing {
		return len(u.waiting)
	}
	return len(u.waiting) + u.session.Streams()
}

func (l *loop) h2Dial(key poolKey, s *seat, e *route.Endpoint) (*h2Upstream, error) {
	u := &h2Upstream{key: key, endpoint: e, dialing: true}
	if err := l.dialInto(&u.sock, s, e); err != nil {
		return nil, err
	}
	u.sock.owner = u
	u.h2Conn = &h2Conn{l: l} // the session comes with the connection
	l.h2pools[key] = append(l.h2pools[key], u)
	e.Open.Add(1)
	l.arm(&u.timer, connectTimeout, u)
	return u, nil
}

func (u *h2Upstream) event() {
	if !u.dialing {
		u.h2Conn.event()
		return
	}
	if !u.sock.out {
		return
	}
	u.timer.stop()
	if err := soError(u.sock.fd); err != nil {
		u.failed()
		return
	}
	u.dialing = false
	u.h2Conn = u.l.newH2(&u.sock, h2.Config{}, u)
	u.moved()
	u.released() // those that waited may have left
}

// moved lets in those that wait, as far as the endpoint takes them. Once it has
// said how many that is, the others go to connections of their own: nothing was
// tried, so nothing is counted.
func (u *h2Upstream) moved() {
	for len(u.waiting) > 0 && u.session.Room() > 0 {
		q := u.waiting[0]
		u.waiting[0] = nil
		u.waiting = u.waiting[1:]
		q.dialed(u)
	}
	if len(u.waiting) == 0 || !u.session.Greeted() && !u.session.Closing() {
		return
	}
	waiting := u.waiting
	u.waiting = nil
	for _, q := range waiting {
		switch {
		case q.dialing != u: // it has gone meanwhile
		case u.session.Closing():
			q.undialed(h2.Unsent)
		case u.session.Limit() == 0 || q.moves == maxMoves:
			q.undialed(h2.RefusedStream)
		default:
			q.redial()
		}
	}
}

// full says that the endpoint has just refused a request because others are
// open: it took back some of what it had said it takes.
func (u *h2Upstream) full() bool {
	return !u.session.Closing() && u.session.Limit() > 0 && u.session.Room() == 0
}

// failed ends a connection that never stood.
func (u *h2Upstream) failed() {
	u.dialing = false
	u.over = true
	u.l.drop(&u.sock)
	u.ended()
}

func (u *h2Upstream) expired(*timer) {
	switch {
	case u.dialing:
		u.failed()
	case !u.over && u.session.Streams() == 0:
		u.end(false)
	}
}

// ended takes a connection that is over out of its pool.
func (u *h2Upstream) ended() {
	u.timer.stop()
	u.endpoint.Open.Add(-1)
	list := u.l.h2pools[u.key]
	for i, v := range list {
		if v == u {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(u.l.h2pools, u.key)
	} else {
		u.l.h2pools[u.key] = list
	}
	why := h2.Unsent
	if u.session == nil {
		why = h2.ConnectFailed
	}
	waiting := u.waiting
	u.waiting = nil
	for _, q := range waiting {
		if q.dialing == u {
			q.undialed(why)
		}
	}
}

// forget takes a request off those that wait.
func (u *h2Upstream) forget(q *h2Request) {
	if i := slices.Index(u.waiting, q); i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
	}
}

func (u *h2Upstream) parted() {
	u.l.drop(&u.sock)
	u.ended()
}

func (u *h2Upstream) fed()   { u.moved() }
func (u *h2Upstream) wrote() { u.moved() }

// released is told that a request has left the connection.
func (u *h2Upstream) released() {
	if u.over || u.dialing || u.session.Streams() > 0 {
		return
	}
	idle := h2Idle
	if u.session.Limit() == 0 {
		idle = lingerTimeout // of no use until its endpoint thinks better of it
	}
	u.l.arm(&u.timer, idle, u)
}

// hangUp ends the connection whatever state it is in. What breaks off by it is
// not held against the endpoint.
func (u *h2Upstream) hangUp() {
	u.hungUp = true
	if u.dialing {
		u.failed()
		return
	}
	u.end(true)
}
