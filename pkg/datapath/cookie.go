package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// NetnsCookie returns the cookie by which the hooks know a network namespace.
// Before 5.14 only an attached connect hook can tell it, so there the first
// call attaches the programs if no earlier daemon did. It belongs to the
// goroutine of Apply.
func (d *Datapath) NetnsCookie(ns *netns.Handle) (uint64, error) {
	var cookie uint64
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %s", err)
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			cookie, err = d.learnCookie(fd)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read netns cookie: %w", err)
	}
	return cookie, nil
}

// learnCookie connects to the reserved address; the hook writes the netns
// cookie under the socket's own.
func (d *Datapath) learnCookie(fd int) (uint64, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netns.Mark); err != nil {
		return 0, fmt.Errorf("mark socket: %s", err)
	}
	sock, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read socket cookie: %s", err)
	}
	to := &unix.SockaddrInet4{Addr: LearnAddr(d.params.VIP4).As4(), Port: 9}
	if err := unix.Connect(fd, to); err != nil {
		return 0, fmt.Errorf("connect to %s: %s", netip.AddrFrom4(to.Addr), err)
	}
	var cookie uint64
	err = d.objs.LearnedV1.Lookup(sock, &cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		// The first start on this kernel: nothing is attached yet.
		if err := d.Publish(); err != nil {
			return 0, err
		}
		if err := unix.Connect(fd, to); err != nil {
			return 0, fmt.Errorf("connect to %s: %s", netip.AddrFrom4(to.Addr), err)
		}
		err = d.objs.LearnedV1.Lookup(sock, &cookie)
	}
	if err != nil {
		return 0, fmt.Errorf("ask the connect hook (is it attached above this process's cgroup?): %w", err)
	}
	return cookie, nil
}
