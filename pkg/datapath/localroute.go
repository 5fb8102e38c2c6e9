package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
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

// localRoute makes the addresses of a prefix the namespace's own, which those
// of 127.0.0.0/8 are anyway.
type localRoute struct {
	ns     *netns.Handle
	prefix netip.Prefix
}

func addLocalRoute(ns *netns.Handle, prefix netip.Prefix) (*localRoute, error) {
	own, err := ns.Clone()
	if err != nil {
		return nil, err
	}
	r := &localRoute{ns: own, prefix: prefix}
	if err := r.do(netlink.RouteReplace); err != nil {
		return nil, errors.Join(fmt.Errorf("add route local %s: %w", prefix, err), own.Close())
	}
	return r, nil
}

func (r *localRoute) remove() error {
	err := r.do(netlink.RouteDel)
	if errors.Is(err, unix.ESRCH) { // somebody has cleaned up
		err = nil
	}
	return errors.Join(err, r.ns.Close())
}

func (r *localRoute) do(change func(*netlink.Route) error) error {
	return r.ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr := r.prefix.Masked().Addr().As16()
		return change(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
			Dst: &net.IPNet{IP: addr[:], Mask: net.CIDRMask(r.prefix.Bits(), 128)},
		})
	})
}
