package proxy

import (
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
	waiting  []*h2Request // until the connection stands; not exchanges, which are used anew once they are done
	dialing  bool
	timer    timer // connect, then idleness
	used     bool
}

// h2Session finds a session with room to an endpoint, or begins one.
func (l *loop) h2Session(s *seat, e *route.Endpoint) (*h2Upstream, error) {
	key := poolKey{s, e.ID}
	for _, u := range l.h2pools[key] {
		if u.dialing && len(u.waiting) < h2PerDial || !u.dialing && u.session.Room() > 0 && !u.session.Closing() {
			return u, nil
		}
	}
	return l.h2Dial(key, s, e)
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
	u.dialing, u.used = false, true // by those that wait for it
	u.h2Conn = u.l.newH2(&u.sock, h2.Config{}, u)
	waiting := u.waiting
	u.waiting = nil
	for _, q := range waiting {
		if q.dialing == u {
			q.dialed(u)
		}
	}
}

// failed ends a connection that never stood.
func (u *h2Upstream) failed() {
	u.dialing = false
	u.over = true
	u.l.drop(&u.sock)
	waiting := u.waiting
	u.waiting = nil
	u.ended()
	for _, q := range waiting {
		if q.dialing == u {
			q.undialed()
		}
	}
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
}

func (u *h2Upstream) parted() {
	u.l.drop(&u.sock)
	u.ended()
}

// fed is nothing to do: requests have timeouts of their own.
func (u *h2Upstream) fed() {}

// released is told that a request has left the connection.
func (u *h2Upstream) released() {
	if !u.over && !u.dialing && u.session.Streams() == 0 {
		u.l.arm(&u.timer, h2Idle, u)
	}
}

// hangUp ends the connection whatever state it is in.
func (u *h2Upstream) hangUp() {
	if u.dialing {
		u.failed()
		return
	}
	u.end(true)
}
