package testutil

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// peerLink is a router's link to the bridge of the second world.
const peerLink = "eth1"

// Peer makes a second world with subnets of its own, a /24 and a /64, and a
// router between the two, as peered VPCs have it: hosts of either that are made
// from now on have a route to the other, and none to anywhere else. The router
// holds address 254 of each subnet; its SetLink takes the way between them down
// and up, of IPv6 for good.
func (w *World) Peer(subnet4, subnet6 netip.Prefix) (far *World, router *Host) {
	w.tb.Helper()
	far = makeWorld(w.tb, subnet4, subnet6)
	const last = 254
	gateways := func(w *World) []netip.Prefix { return []netip.Prefix{nth(w.subnet4, last), nth(w.subnet6, last)} }
	router = w.Host("router", gateways(w)...)
	if err := router.join(far, gateways(far)); err != nil {
		w.tb.Fatalf("peer %s with %s: %s", w.subnet4, subnet4, err)
	}
	for _, pair := range [][2]*World{{w, far}, {far, w}} {
		from, to := pair[0], pair[1]
		for i, dst := range []netip.Prefix{to.subnet4, to.subnet6} {
			from.routes = append(from.routes, &netlink.Route{
				Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())}, Gw: gateways(from)[i].Addr().AsSlice(),
			})
		}
	}
	return far, router
}

// join gives a host a second link, and has it forward between the two.
func (h *Host) join(w *World, addrs []netip.Prefix) error {
	if _, err := h.plug(w, peerLink, addrs); err != nil {
		return err
	}
	if err := h.setLink(w, peerLink, true); err != nil {
		return err
	}
	return h.Do(func() error { // /proc/sys/net is that of the thread
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
				return fmt.Errorf("forward: %w", err)
			}
		}
		return nil
	})
}
