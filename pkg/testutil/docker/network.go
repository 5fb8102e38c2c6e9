package docker

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

// Network is where the interfaces of awsvpc tasks are: the ports of a bridge in
// a namespace that is not dockerd's, whose iptables would drop what it forwards.
type Network struct {
	NS     *netns.Handle
	Bridge string
	First  netip.Prefix // address of the first task, others count from there
	Router netip.Addr   // the tasks' default route, none when zero
}

// The network that an engine makes for itself when Options has none. The node
// has an address on it, as instances have in their VPC.
const ownBridge, nodeLink = "vpc0", "vpc"

func ownNetwork(ns *netns.Handle) *Network {
	return &Network{
		NS: ns, Bridge: ownBridge,
		First: netip.MustParsePrefix("10.77.0.10/16"), Router: netip.MustParseAddr("10.77.0.1"),
	}
}

// makeNetwork makes the engine's own and links the node to it.
func (e *Engine) makeNetwork() error {
	r, err := newRoom(nil)
	if err != nil {
		return err
	}
	defer r.close()
	ns, err := r.netns()
	if err != nil {
		return err
	}
	e.vpc, e.net = ns, ownNetwork(ns)
	err = r.do(func() error {
		links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer links.Close()
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: ownBridge}}
		if err := links.LinkAdd(bridge); err != nil {
			return err
		}
		if err := links.LinkSetUp(bridge); err != nil {
			return err
		}
		return addPort(links, bridge, "node", nodeLink, e.room.tid)
	})
	if err != nil {
		return err
	}
	return e.room.do(func() error {
		return configure(nodeLink, netip.PrefixFrom(e.net.Router, e.net.First.Bits()), netip.Prefix{}, netip.Addr{})
	})
}

// addPort makes a link between a bridge and the namespace of a process or thread.
func addPort(links *netlink.Handle, bridge netlink.Link, port, peer string, pid int) error {
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
		PeerName:  peer, PeerNamespace: netlink.NsPid(pid),
	}
	if err := links.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", port, err)
	}
	return links.LinkSetUp(veth)
}

// configure gives a link of the calling thread's namespace an address, and one
// of IPv6 if there is any, and takes it up.
func configure(name string, addr, addr6 netip.Prefix, router netip.Addr) error {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	link, err := links.LinkByName(name)
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{addr, addr6} {
		if !p.IsValid() {
			continue
		}
		a, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD // at once, as an instance's metadata assures
		if err := links.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if err := links.LinkSetUp(link); err != nil || !router.IsValid() {
		return err
	}
	return links.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: router.AsSlice()})
}

// plug gives the pause container of the n-th task its interface.
func (e *Engine) plug(pid int, addr, addr6 netip.Prefix, n int) (netip.Prefix, error) {
	if !addr.IsValid() {
		addr = nth(e.net.First, n-1)
	}
	err := e.net.NS.Do(func() error {
		links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer links.Close()
		bridge, err := links.LinkByName(e.net.Bridge)
		if err != nil {
			return err
		}
		// Engines that share a bridge count their tasks each for itself.
		port := fmt.Sprintf("v%x", uint64(pid))
		return addPort(links, bridge, port, "eth0", pid)
	})
	if err != nil {
		return addr, err
	}
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return addr, err
	}
	defer ns.Close()
	return addr, ns.Do(func() error { return configure("eth0", addr, addr6, e.net.Router) })
}

// nth counts addresses on; it stays within 16 bits.
func nth(p netip.Prefix, n int) netip.Prefix {
	b := p.Addr().AsSlice()
	low := int(b[len(b)-2])<<8 + int(b[len(b)-1]) + n
	b[len(b)-2], b[len(b)-1] = byte(low>>8), byte(low)
	addr, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(addr, p.Bits())
}
