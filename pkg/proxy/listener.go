package proxy

import (
	"slices"

	"golang.org/x/sys/unix"
)

// listener accepts on one loop and hands out to the least loaded.
type listener struct {
	sock
	seat *seat
}

func (v *listener) event() {
	if v.in {
		v.accept()
	}
}

// accept takes what is waiting.
func (v *listener) accept() {
	l := v.seat.loop
	for {
		fd, from, err := unix.Accept4(v.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			v.admit(fd, from)
		case unix.EAGAIN:
			v.in = false
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			// They wait in the queue until something is closed; new ones would
			// too, and go direct once it is full of them.
			l.p.refused(reasonNoDescriptor)
			l.arm(&l.accepts, acceptRetry, l)
			return
		case unix.ECONNABORTED, unix.EINTR, unix.EPERM, unix.EPROTO:
		default:
			v.in = false
			l.p.params.Log.Error("accept", "error", err)
			return
		}
	}
}

// admit finds out whose connection it is and which loop takes it.
func (v *listener) admit(fd int, from unix.Sockaddr) {
	p := v.seat.p
	to, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return
	}
	c := &client{seat: v.seat, from: addrPort(from), vip: addrPort(to)}
	c.fd = fd
	task, ok := v.seat.kernel.Caller(c.from, c.vip)
	if !ok {
		// Its maker has closed it again, or it came by itself.
		p.refused(reasonNotAdmitted)
		unix.Close(fd)
		return
	}
	c.task = task
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	l := p.least()
	l.load.Add(1)
	if l == v.seat.loop {
		l.admit(c)
		return
	}
	if !l.post(func() { l.admit(c) }) {
		l.load.Add(-1)
		unix.Close(fd)
	}
}

// admit begins to serve an accepted connection.
func (l *loop) admit(c *client) {
	c.l, c.owner = l, c
	if err := l.watch(&c.sock); err != nil {
		unix.Close(c.fd)
		l.load.Add(-1)
		return
	}
	l.clients[c] = struct{}{}
	if c.seat.closed.Load() {
		c.close()
		return
	}
	c.rest()
}

// seat begins to accept.
func (l *loop) seat(s *seat) error {
	for _, v := range s.listeners {
		if err := l.watch(&v.sock); err != nil {
			return err
		}
	}
	l.seats[s] = struct{}{}
	s.kernel.Beat()
	if l.beats.when == 0 {
		l.arm(&l.beats, beatEvery, l)
	}
	return nil
}

// unseat stops accepting. What was established by then is still served.
func (l *loop) unseat(s *seat) {
	for _, v := range s.listeners {
		if v.fd >= 0 {
			v.accept()
			l.drop(&v.sock)
		}
	}
	delete(l.seats, s)
}

// leaveSeat closes everything of a namespace that is on this loop.
func (l *loop) leaveSeat(s *seat) {
	for c := range l.clients {
		if c.seat == s {
			c.cut()
		}
	}
	for key, list := range l.h2pools {
		if key.seat == s {
			for _, u := range slices.Clone(list) {
				u.hangUp()
			}
		}
	}
	for key, p := range l.pools {
		if key.seat == s {
			for len(p.idle) > 0 {
				p.idle[len(p.idle)-1].close()
			}
		}
	}
}

// expired of a loop's own timers: the heartbeat, and accepting again.
func (l *loop) expired(t *timer) {
	switch t {
	case &l.beats:
		for s := range l.seats {
			s.kernel.Beat()
		}
		l.sweepPools()
		if len(l.seats) > 0 {
			l.arm(&l.beats, beatEvery, l)
		}
	case &l.accepts:
		for s := range l.seats {
			for _, v := range s.listeners {
				v.accept()
			}
		}
	}
}
