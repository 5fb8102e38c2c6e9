package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/proxy/route"
)

// Listeners are the forwarder's sockets in one network namespace.
type Listeners struct {
	Task   *plan.Task    // one that lives there
	NS     *netns.Handle // nil: the node's own
	V4, V6 int           // listening descriptors; V6 is -1 where there is no IPv6
}

// Forwarder is what the kernel knows of Listeners.
type Forwarder interface {
	// Beat says that connections are being accepted. It is called every
	// 400 ms; when it is not called for 2 s new connections go direct.
	Beat()
	// Caller says who made an accepted connection, once. ok is false for a
	// connection that the kernel did not leave to the forwarder.
	Caller(client, vip netip.AddrPort) (id lb.TaskID, ok bool)
	// Away sends new connections direct. Those on their way still arrive.
	Away() error
	// Close is Away, and nothing arrives any more.
	Close() error
}

// seat is one network namespace that requests come from.
type seat struct {
	p         *Proxy
	ns        *netns.Handle
	users     int // attached tasks; more than one in the node's own namespace
	loop      *loop
	listeners []*listener
	kernel    Forwarder
	closed    atomic.Bool

	sources [2]atomic.Pointer[[]byte] // the namespace's own addresses, IPv4 and IPv6
}

// Seat is one task's hold on the listeners of its network namespace.
type Seat struct {
	p    *Proxy
	seat *seat
	key  uint64
}

// Attach makes a network namespace's listeners, unless another task there has
// them already. ns may be closed afterwards. ctx bounds nothing: no call waits
// for anything but a lock.
func (p *Proxy) Attach(_ context.Context, task *plan.Task, ns *netns.Handle) (*Seat, error) {
	key := ns.Inode()
	if ns.Self() {
		key = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seats[key]
	if s == nil {
		var err error
		if s, err = p.open(task, ns); err != nil {
			return nil, fmt.Errorf("attach forwarder of task %s: %w", task.Name, err)
		}
		p.seats[key] = s
	}
	s.users++
	return &Seat{p: p, seat: s, key: key}, nil
}

// Close gives up the hold. With the last one go the listeners, and every
// connection made from the namespace: none may keep it alive.
func (h *Seat) Close() error {
	h.p.mu.Lock()
	s := h.seat
	s.users--
	last := s.users == 0
	if last {
		delete(h.p.seats, h.key)
	}
	h.p.mu.Unlock()
	if !last {
		return nil
	}
	return s.close()
}

func (p *Proxy) open(task *plan.Task, ns *netns.Handle) (*seat, error) {
	own, err := ns.Clone()
	if err != nil {
		return nil, err
	}
	s := &seat{p: p, ns: own, loop: p.loops[p.next%len(p.loops)]}
	p.next++
	v4, v6 := -1, -1
	err = own.Do(func() (err error) {
		if v4, err = listen(netip.AddrFrom4([4]byte{127, 255, 255, 254})); err != nil {
			return err
		}
		// Without IPv6 in the namespace its VIPs cannot be connected to either.
		if fd, err := listen(netip.IPv6Loopback()); err == nil {
			v6 = fd
		}
		return nil
	})
	if err == nil {
		s.kernel, err = p.params.Forward(Listeners{Task: task, NS: own, V4: v4, V6: v6})
	}
	if err != nil {
		for _, fd := range []int{v4, v6} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		return nil, errors.Join(err, own.Close())
	}
	for _, fd := range []int{v4, v6} {
		if fd >= 0 {
			l := &listener{seat: s}
			l.fd, l.owner = fd, l
			s.listeners = append(s.listeners, l)
		}
	}
	s.loop.call(func() { err = s.loop.seat(s) })
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close ends everything that was made from the namespace.
func (s *seat) close() error {
	s.closed.Store(true)
	err := s.kernel.Close()
	s.loop.call(func() { s.loop.unseat(s) })
	for _, l := range s.p.loops {
		l.call(func() { l.leaveSeat(s) })
	}
	return errors.Join(err, s.ns.Close())
}

// listen makes a listener on a port that no application asks for by itself.
func listen(addr netip.Addr) (fd int, err error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	// Plain TCP: a sockmap refuses multipath listeners.
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP); err != nil {
		return -1, err
	}
	if err := prepare(fd, addr); err != nil {
		unix.Close(fd) // or it keeps the namespace alive
		return -1, err
	}
	return moveUp(fd), nil
}

func prepare(fd int, addr netip.Addr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netns.Mark); err != nil {
		return fmt.Errorf("mark listener: %w", err)
	}
	if err := bindHigh(fd, addr); err != nil {
		return err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// moveUp gives a listener a number above those of connections. Linux closes
// what a killed process had open beginning with the highest number; did the
// listener outlive the connections even for a moment, a client that connects
// anew when its connection has been reset would be left to it, and be reset
// once more.
func moveUp(fd int) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fd
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, int(min(limit.Cur, highest)/4*3))
	if err != nil {
		return fd // it works as well where it is
	}
	unix.Close(fd)
	return high
}

// bindHigh binds above the ranges that others choose ports from, see package
// dns; nobody asks for the port, for connections come by way of the kernel.
func bindHigh(fd int, addr netip.Addr) (err error) {
	for try := range uint16(24) {
		port := uint16(65535) - try*7 - uint16(unix.Getpid()%4096)
		if try == 23 {
			port = 0
		}
		if err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(addr, port))); err != unix.EADDRINUSE {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", addr, err)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// socket makes an unconnected socket in the namespace.
func (s *seat) socket(to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	err = s.ns.Visit(s.p.params.Home, func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netns.Mark); err != nil {
		unix.Close(fd)
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // else a small write waits for an acknowledgement
	return fd, nil
}

// source is the address that endpoints see requests of this namespace come
// from: x-forwarded-for. The client's own would be loopback's, which servers
// take for their own machine.
func (s *seat) source(r *route.Route, v6 bool) []byte {
	known := &s.sources[0]
	if v6 {
		known = &s.sources[1]
	}
	if found := known.Load(); found != nil {
		return *found
	}
	found := s.findSource(r, v6)
	if found == nil {
		return unknownSource
	}
	known.Store(&found)
	return found
}

func (s *seat) findSource(r *route.Route, v6 bool) []byte {
	for i := range r.Endpoints {
		to := r.Endpoints[i].Address
		if to.Addr().Is6() != v6 {
			continue
		}
		var from netip.Addr
		s.ns.Visit(s.p.params.Home, func() error {
			fd, err := unix.Socket(familyOf(to), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netns.Mark)
			if err := unix.Connect(fd, sockaddr(to)); err != nil { // routes, sends nothing
				return err
			}
			sa, err := unix.Getsockname(fd)
			from = addrPort(sa).Addr()
			return err
		})
		if from.IsValid() {
			return []byte(from.String())
		}
	}
	return nil
}

var unknownSource = []byte("unknown") // Squid's word, and RFC 7239's

func familyOf(a netip.AddrPort) int {
	if a.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
