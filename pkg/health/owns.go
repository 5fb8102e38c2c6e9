package health

import (
	"fmt"
	"net/netip"

	"connectd/pkg/netns"

	"golang.org/x/sys/unix"
)

// owns says whether an address is one of a namespace's own: a socket can be
// bound to it. Where ip_nonlocal_bind is set, or as long as lo was never up,
// every address passes for its own.
func owns(h *netns.Handle, addr netip.Addr) (owned bool, err error) {
	err = h.Do(func() error {
		family, where := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.As16()})
		if addr.Is4() {
			family, where = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make socket to see whose %s is: %w", addr, err)
		}
		defer unix.Close(fd)
		switch err := unix.Bind(fd, where); err {
		case nil:
			owned = true
		case unix.EADDRNOTAVAIL:
		default:
			return fmt.Errorf("see whose %s is: %w", addr, err)
		}
		return nil
	})
	return owned, err
}
