package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/proxy/route"
)

// upstream is one connection to an endpoint, in a request's use or idle in its
// pool.
type upstream struct {
	sock
	l        *loop
	seat     *seat
	pool     *pool
	endpoint *route.Endpoint
	used     bool  // carried a request before
	idleAt   int64 // since when it is idle
	asks     bool  // the kernel asks whether the endpoint's machine still is there
	timer    timer
	x        *exchange // whose it is now
}

// pool holds the idle connections from one network namespace to one endpoint,
// the most recently used last.
type pool struct {
	key  poolKey
	idle []*upstream
}

type poolKey struct {
	seat     *seat
	endpoint lb.EndpointID
}

// pooled takes an idle connection, if there is one that has not been idle for
// longer than most.
func (l *loop) pooled(s *seat, e *route.Endpoint, most time.Duration) *upstream {
	p := l.pools[poolKey{s, e.ID}]
	if p == nil {
		return nil
	}
	for n := len(p.idle); n > 0; n = len(p.idle) {
		u := p.idle[n-1]
		if most > 0 && l.now-u.idleAt > int64(most) {
			return nil // those below have been idle for longer
		}
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		u.timer.stop()
		l.idle.Add(-1)
		u.pool = nil
		if u.in || u.dead || u.endpoint != e {
			// It has ended or said what nobody asked; its event is still to come.
			u.close()
			continue
		}
		return u
	}
	return nil
}

// keep puts a connection back into its pool.
func (l *loop) keep(s *seat, u *upstream) {
	key := poolKey{s, u.endpoint.ID}
	p := l.pools[key]
	if p == nil {
		p = &pool{key: key}
		l.pools[key] = p
	}
	if u.in || u.dead || u.fin || len(p.idle) >= maxIdle || l.closing || s.closed.Load() {
		u.close()
		return
	}
	u.noAsking()
	u.x, u.co, u.want = nil, nil, 0
	u.used, u.pool, u.idleAt = true, p, l.now
	p.idle = append(p.idle, u)
	l.idle.Add(1)
	l.arm(&u.timer, poolIdle, u)
}

// event of an idle connection: whatever it is, it is of no use any more.
func (u *upstream) event() {
	if u.pool != nil && (u.in || u.dead || u.fin) {
		u.close()
	}
}

// silent says whether the endpoint's machine has acknowledged nothing for
// silentAfter though it was sent the same again twice: it is gone, and no reset
// will tell. One whose program is slow acknowledges. The kernel's own limit,
// TCP_USER_TIMEOUT, would also end connections to those who read slowly.
//
// Where all was acknowledged the kernel asks from now on whether the machine
// still is there, each second, and ends the connection after three times.
func (u *upstream) silent() bool {
	info, err := unix.GetsockoptTCPInfo(u.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	if info.Unacked > 0 {
		return info.Retransmits >= 2 && time.Duration(info.Last_ack_recv)*time.Millisecond >= silentAfter*3/4
	}
	if !u.asks {
		u.asks = true
		unix.SetsockoptInt(u.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1)
		unix.SetsockoptInt(u.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1)
		unix.SetsockoptInt(u.fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
		unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	return false
}

// noAsking takes that back: an idle connection costs no packets.
func (u *upstream) noAsking() {
	if u.asks {
		u.asks = false
		unix.SetsockoptInt(u.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
}

func (u *upstream) expired(*timer) { u.close() }

func (u *upstream) close() {
	if u.fd < 0 {
		return
	}
	if p := u.pool; p != nil {
		u.pool = nil
		u.l.idle.Add(-1)
		for i, v := range p.idle {
			if v == u {
				p.idle = append(p.idle[:i], p.idle[i+1:]...)
				break
			}
		}
		if len(p.idle) == 0 {
			delete(u.l.pools, p.key)
		}
	}
	u.timer.stop()
	u.endpoint.Open.Add(-1)
	if u.seat.closed.Load() {
		// A namespace that goes may have lost its link, and a socket that
		// waits there to see its end confirmed would keep it for minutes.
		u.l.reset(&u.sock)
	} else {
		u.l.drop(&u.sock)
	}
	delete(u.l.upstreams, u)
}

// sweepPools forgets pools that have been emptied: endpoints come and go.
func (l *loop) sweepPools() {
	for key, p := range l.pools {
		if len(p.idle) == 0 {
			delete(l.pools, key)
		}
	}
}

// dial begins a connection; it is established, or has failed, when it becomes
// writable.
func (l *loop) dial(s *seat, e *route.Endpoint) (*upstream, error) {
	u := &upstream{l: l, seat: s, endpoint: e}
	u.owner = u
	if err := l.dialInto(&u.sock, s, e); err != nil {
		return nil, err
	}
	l.upstreams[u] = struct{}{}
	e.Open.Add(1)
	return u, nil
}

// dialInto begins a connection of a sock that has its owner.
func (l *loop) dialInto(k *sock, s *seat, e *route.Endpoint) (err error) {
	if k.fd, err = s.socket(e.Address); err != nil {
		return err
	}
	if err := l.watch(k); err != nil {
		unix.Close(k.fd)
		return err
	}
	if err := unix.Connect(k.fd, sockaddr(e.Address)); err != nil && err != unix.EINPROGRESS {
		l.drop(k)
		return err
	}
	return nil
}

// noDescriptor says that a connection failed for what we lack, and not for its
// endpoint.
func noDescriptor(err error) bool { return err == unix.EMFILE || err == unix.ENFILE }

// soError says what became of a connect.
func soError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
