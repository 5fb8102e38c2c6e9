package testutil

import (
	"fmt"
	"net/netip"
	"testing"

	"connectd/pkg/netns"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const bridgeName = "br0"

// World is a bridge in a network namespace of its own, and the hosts on it.
type World struct {
	tb    testing.TB
	path  string
	ns    *netns.Handle
	links *netlink.Handle
	hosts int

	subnet4, subnet6 netip.Prefix     // that hosts without addresses of their own get one from
	routes           []*netlink.Route // of hosts that are made from now on
}

// NewWorld makes a world that ends with the test. The bridge holds 10.66.0.1
// and fd66::1, which hosts may use as a router that leads nowhere else.
func NewWorld(tb testing.TB) *World {
	tb.Helper()
	RequireRoot(tb)
	if err := Sweep(); err != nil {
		tb.Logf("sweep what killed runs left: %s", err)
	}
	return makeWorld(tb, Subnet4(), Subnet6())
}

func makeWorld(tb testing.TB, subnet4, subnet6 netip.Prefix) *World {
	tb.Helper()
	w := &World{tb: tb, subnet4: subnet4, subnet6: subnet6}
	var err error
	if w.path, err = newNetns("world"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.close)
	if w.ns, w.links, err = enter(w.path); err != nil {
		tb.Fatal(err)
	}
	if err := w.addBridge(); err != nil {
		tb.Fatal(err)
	}
	return w
}

// NS is the namespace of the bridge.
func (w *World) NS() *netns.Handle { return w.ns }

// Subnet4 and Subnet6 are the prefixes that hosts of NewWorld without addresses
// of their own get one from.
func Subnet4() netip.Prefix { return netip.MustParsePrefix("10.66.0.0/24") }
func Subnet6() netip.Prefix { return netip.MustParsePrefix("fd66::/64") }

// enter opens a namespace and a route netlink socket inside it.
func enter(path string) (*netns.Handle, *netlink.Handle, error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, nil, err
	}
	var links *netlink.Handle
	err = ns.Do(func() error {
		var err error
		links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		ns.Close()
		return nil, nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return ns, links, nil
}

func (w *World) addBridge() error {
	// Snooping would drop neighbour discovery while no querier is known.
	off := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}, MulticastSnooping: &off}
	if err := w.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	for _, p := range []netip.Prefix{w.subnet4, w.subnet6} {
		router := netip.PrefixFrom(p.Addr().Next(), p.Bits())
		if err := addAddress(w.links, bridge, router); err != nil {
			return err
		}
	}
	return w.links.LinkSetUp(bridge)
}

// close ends the world; hosts have cleanups of their own, which ran before.
func (w *World) close() {
	if w.links != nil {
		w.links.Close()
	}
	w.ns.Close()
	if err := removeNetns(w.path); err != nil {
		w.tb.Error(err)
	}
}

// addAddress adds an address that is usable at once: no duplicate detection.
func addAddress(links *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	addr, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := links.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add address %s: %w", p, err)
	}
	return nil
}
