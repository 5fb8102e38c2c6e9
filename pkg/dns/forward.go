package dns

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// spareBatch is how many upstream sockets one visit to the task's namespace
// makes: a visit costs a thread, some 250 us.
const spareBatch = 16

// forward passes a query on in its own goroutine. query is copied.
func (v *server) forward(query []byte, client netip.AddrPort) {
	s := v.seat
	if !s.admit() {
		return
	}
	query = bytes.Clone(query)
	s.wg.Go(func() {
		defer s.done()
		v.relay(query, client)
	})
}

// admit counts a query that is in flight from now on, until done, unless there
// are too many: then silence, and the client asks again, as with any overloaded
// resolver.
func (s *Seat) admit() bool {
	own, all := s.inFlight.Add(1), s.r.inFlight.Add(1)
	if own > seatInFlight || all > maxInFlight {
		s.r.counters.count(dropped)
		s.done()
		return false
	}
	return true
}

func (s *Seat) done() {
	s.r.inFlight.Add(-1)
	if s.inFlight.Add(-1) == 0 {
		select {
		case s.drained <- struct{}{}:
		default:
		}
	}
}

// relay carries one query to the task's resolver and its answer back, both
// byte for byte, the id too: the socket is connected and serves this query
// alone, from a port the kernel chose at random, so a forger must guess as
// much as if the task had asked itself.
func (v *server) relay(query []byte, client netip.AddrPort) {
	err := v.exchange(query, func(answer []byte) bool {
		if len(answer) < headerSize || answer[0] != query[0] || answer[1] != query[1] || answer[2]&bitQR == 0 {
			return false
		}
		v.reply(answer, client)
		return true
	})
	switch counters := &v.seat.r.counters; {
	case err == nil:
		counters.count(forwarded)
	case v.seat.ctx.Err() != nil: // the seat is being closed
		counters.count(dropped)
	case errors.Is(err, os.ErrDeadlineExceeded):
		counters.count(timedOut)
	default:
		// The task's own socket would have failed at once (port unreachable,
		// no route), on which resolvers turn to the next server. They do so
		// on SERVFAIL too, and on silence only after seconds.
		counters.count(upstreamError)
		v.reply(serverFailure(query, nil), client)
	}
}

// exchange sends query and hands what comes back to accept, until it returns
// true.
func (v *server) exchange(query []byte, accept func([]byte) bool) error {
	s := v.seat
	f, err := s.dialUDP(v.upstream)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(s.r.params.Timeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(s.ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := f.Write(query); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Read(func(fd uintptr) (done bool) {
		// Only what is being read needs a buffer, not what is being waited for.
		buf := s.r.buffers.Get().(*[maxMessage]byte)
		defer s.r.buffers.Put(buf)
		for {
			n, err := unix.Read(int(fd), buf[:])
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return false
			case err != nil:
				failure = err
				return true
			case accept(buf[:n]):
				return true
			}
		}
	})
	if err != nil {
		return err
	}
	return failure
}

// dialUDP connects a marked socket of the task's namespace.
func (s *Seat) dialUDP(to netip.AddrPort) (*os.File, error) {
	fd, err := s.spare(to.Addr())
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netns.Mark); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), "udp "+s.task.Name), nil
}

// spare returns an unconnected, non-blocking UDP socket of the task's
// namespace, making a few when there is none.
func (s *Seat) spare(addr netip.Addr) (int, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	s.spareMu.Lock()
	defer s.spareMu.Unlock()
	if len(s.spares[family]) == 0 {
		err := s.ns.Do(func() error {
			for range spareBatch {
				fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return os.NewSyscallError("socket", err)
				}
				s.spares[family] = append(s.spares[family], fd)
			}
			return nil
		})
		if len(s.spares[family]) == 0 {
			return -1, err
		}
	}
	list := s.spares[family]
	fd := list[len(list)-1]
	s.spares[family] = list[:len(list)-1]
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.Atoi(a.Addr().Zone()) // numeric since listen; "" is 0
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}
