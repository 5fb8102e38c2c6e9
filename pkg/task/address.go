package task

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// Addresses are those under which others reach a network namespace. Either
// may be invalid, which is none.
type Addresses struct{ V4, V6 netip.Addr }

// all are the valid ones.
func (a Addresses) all() (out []netip.Addr) {
	for _, addr := range []netip.Addr{a.V4, a.V6} {
		if addr.IsValid() {
			out = append(out, addr)
		}
	}
	return out
}

// ReadAddresses returns the addresses of a namespace: of the interface that
// the default route leads through if there is one, else the first global ones.
// Loopback and link-local addresses, such as the agent's 169.254.172.0/22 in an
// awsvpc task, are none.
func ReadAddresses(ns *netns.Handle) (out Addresses, err error) {
	err = ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("read addresses: %w", err)
		}
		defer h.Close()
		out.V4, err = pickAddress(h, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		out.V6, err = pickAddress(h, netlink.FAMILY_V6)
		return err
	})
	return out, err
}

func pickAddress(h *netlink.Handle, family int) (netip.Addr, error) {
	list, err := h.AddrList(nil, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read addresses: %w", err)
	}
	routes, err := h.RouteList(nil, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read routes: %w", err)
	}
	outward := -1
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() && maskless(r) {
			outward = r.LinkIndex
			break
		}
	}
	var first netip.Addr
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		addr = addr.Unmap()
		if !ok || !addr.IsGlobalUnicast() || a.Flags&unix.IFA_F_TENTATIVE != 0 {
			continue
		}
		if a.LinkIndex == outward {
			return addr, nil
		}
		if !first.IsValid() {
			first = addr
		}
	}
	return first, nil
}

func maskless(r netlink.Route) bool {
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}
