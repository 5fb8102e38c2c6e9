package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachNetns attaches an sk_lookup program to the namespace of the calling
// thread.
func attachNetns(prog *ebpf.Program) (link.Link, error) {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open netns: %w", err)
	}
	defer self.Close()
	l, err := link.AttachNetNs(int(self.Fd()), prog)
	if err != nil {
		return nil, fmt.Errorf("attach sk_lookup: %w", err)
	}
	return l, nil
}

// route makes the IPv6 VIPs the namespace's own addresses, which those of
// 127.0.0.0/8 are anyway.
func (w *Forwarder) route() error {
	if err := w.changeRoute(netlink.RouteReplace); err != nil {
		return fmt.Errorf("add route local %s: %w", w.d.params.VIP6, err)
	}
	w.routed = true
	w.d.seats.routes[w.entry.Netns]++
	return nil
}

// unroute takes the route away when no other Forwarder needs it.
func (w *Forwarder) unroute() error {
	routes := w.d.seats.routes
	if !w.routed {
		return nil
	}
	if routes[w.entry.Netns]--; routes[w.entry.Netns] > 0 {
		return nil
	}
	delete(routes, w.entry.Netns)
	err := w.changeRoute(netlink.RouteDel)
	if err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: somebody has cleaned up
		return fmt.Errorf("delete route local %s: %w", w.d.params.VIP6, err)
	}
	return nil
}

func (w *Forwarder) changeRoute(change func(*netlink.Route) error) error {
	prefix := w.d.params.VIP6
	addr := prefix.Masked().Addr().As16()
	return w.ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return change(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
			Dst: &net.IPNet{IP: addr[:], Mask: net.CIDRMask(prefix.Bits(), 128)},
		})
	})
}
