package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock is a non-blocking socket in its loop's epoll, edge-triggered: in and out
// remember what the kernel said last and are taken back when a call finds
// nothing to do.
type sock struct {
	fd   int
	gen  int32 // tells its events from those of an earlier socket with the number
	in   bool  // may have something to read
	out  bool  // may take something
	fin  bool  // the peer has shut down its side, which is read after the data
	dead bool  // error or both sides shut down

	// Either a coroutine waits for want, or owner is told of every event.
	co    *coro
	want  uint8
	owner watcher
}

type watcher interface{ event() }

const (
	wantIn uint8 = 1 << iota
	wantOut
)

type result uint8

const (
	resultOK     result = iota
	resultAgain         // nothing to read, no room to write
	resultEOF           // the peer has shut down its side
	resultFailed        // the connection is gone
)

const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// watch takes a socket into the loop.
func (l *loop) watch(s *sock) error {
	for s.fd >= len(l.socks) {
		l.socks = append(l.socks, make([]*sock, 256)...)
	}
	l.gen++
	s.gen = l.gen
	ev := unix.EpollEvent{Events: uint32(watched), Fd: int32(s.fd), Pad: s.gen}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		return err
	}
	l.socks[s.fd] = s
	return nil
}

// drop closes a socket; closing takes it out of the epoll.
func (l *loop) drop(s *sock) {
	if s.fd < 0 {
		return
	}
	if s.fd < len(l.socks) && l.socks[s.fd] == s {
		l.socks[s.fd] = nil
	}
	unix.Close(s.fd)
	s.fd = -1
}

// reset closes a socket so that the peer sees a reset instead of an end.
func (l *loop) reset(s *sock) {
	if s.fd >= 0 {
		unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	l.drop(s)
}

// dispatch notes an event and tells who waits for it.
func (l *loop) dispatch(s *sock, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		s.in = true
	}
	if events&unix.EPOLLOUT != 0 {
		s.out = true
	}
	if events&unix.EPOLLRDHUP != 0 {
		s.fin = true
	}
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		s.dead, s.in, s.out = true, true, true
	}
	if s.co == nil {
		s.owner.event()
		return
	}
	if s.dead || s.in && s.want&wantIn != 0 || s.out && s.want&wantOut != 0 {
		l.ready(s.co)
	}
}

// read is recv. The calls of this file never block, so they are made without
// telling the scheduler.
func (s *sock) read(p []byte) (int, result) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch errno {
		case 0:
			if n == 0 {
				s.fin, s.in = true, false
				return 0, resultEOF
			}
			if int(n) < len(p) && !s.fin && !s.dead {
				s.in = false // a short read has emptied it; what comes now is a new edge
			}
			return int(n), resultOK
		case unix.EINTR:
		case unix.EAGAIN:
			s.in = false
			return 0, resultAgain
		default:
			s.dead = true
			return 0, resultFailed
		}
	}
}

// write is send; more says that the rest of the message follows at once.
func (s *sock) write(p []byte, more bool) (int, result) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			if int(n) < len(p) {
				s.out = false
			}
			return int(n), resultOK
		case unix.EINTR:
		case unix.EAGAIN:
			s.out = false
			return 0, resultAgain
		default:
			s.dead = true
			return 0, resultFailed
		}
	}
}

// shutdown says to the peer that nothing more will come.
func (s *sock) shutdown() { unix.Shutdown(s.fd, unix.SHUT_WR) }
