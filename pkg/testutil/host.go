package testutil

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectd/pkg/netns"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostLink is a host's link to the world's bridge.
const hostLink = "eth0"

// Host is a network namespace with lo and eth0 up, eth0 being on the world's
// bridge.
type Host struct {
	tb     testing.TB
	world  *World
	name   string
	path   string
	ns     *netns.Handle
	links  *netlink.Handle
	addrs  []netip.Prefix
	port   string // name of the bridge's end of the link
	spawn  spawner
	closer sync.Once

	mu      sync.Mutex
	onClose []func()
}

// Host adds a host that ends with the test. Without addrs it gets the next
// free address of the world's subnets (10.66.0.2, 10.66.0.3, ...).
func (w *World) Host(name string, addrs ...netip.Prefix) *Host {
	w.tb.Helper()
	w.hosts++
	if len(addrs) == 0 {
		addrs = []netip.Prefix{nth(w.subnet4, w.hosts+1), nth(w.subnet6, w.hosts+1)}
	}
	h := &Host{tb: w.tb, world: w, name: name, addrs: addrs, port: fmt.Sprintf("h%d", w.hosts)}
	var err error
	if h.path, err = newNetns(name); err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(h.Close)
	if h.ns, h.links, err = enter(h.path); err != nil {
		w.tb.Fatal(err)
	}
	if err := h.connect(); err != nil {
		w.tb.Fatalf("connect host %s: %s", name, err)
	}
	return h
}

// nth is the n-th address of a prefix, n at most 254.
func nth(p netip.Prefix, n int) netip.Prefix {
	b := p.Addr().AsSlice()
	b[len(b)-1] += byte(n)
	addr, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(addr, p.Bits())
}

// connect brings lo up and links the host to the bridge.
func (h *Host) connect() error {
	lo, err := h.links.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.links.LinkSetUp(lo); err != nil {
		return err
	}
	veth, err := h.plug(h.world, hostLink, h.addrs)
	if err != nil {
		return err
	}
	if err := h.SetLink(true); err != nil {
		return err
	}
	for _, r := range h.world.routes {
		own := *r
		own.LinkIndex = veth.Attrs().Index
		if err := h.links.RouteAdd(&own); err != nil {
			return fmt.Errorf("add route to %s: %w", r.Dst, err)
		}
	}
	return nil
}

// portOf names the bridge's end of a link: a world numbers its own hosts.
func (h *Host) portOf(link string) string {
	if link == hostLink {
		return h.port
	}
	return "peer" + h.port
}

// plug makes a link of the host to a world's bridge, which is not up yet.
func (h *Host) plug(w *World, name string, addrs []netip.Prefix) (netlink.Link, error) {
	bridgeNS, err := os.Open(w.path)
	if err != nil {
		return nil, err
	}
	defer bridgeNS.Close()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name},
		PeerName:      h.portOf(name),
		PeerNamespace: netlink.NsFd(bridgeNS.Fd()),
	}
	if err := h.links.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add veth: %w", err)
	}
	port, err := w.links.LinkByName(h.portOf(name))
	if err != nil {
		return nil, err
	}
	bridge, err := w.links.LinkByName(bridgeName)
	if err != nil {
		return nil, err
	}
	if err := w.links.LinkSetMaster(port, bridge); err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if err := addAddress(h.links, veth, a); err != nil {
			return nil, err
		}
	}
	return veth, nil
}

// SetLink takes the host's link up or down, both ends. Up returns when packets
// pass: before that the kernel drops them, and a lost first SYN or ARP request
// costs a second.
func (h *Host) SetLink(up bool) error { return h.setLink(h.world, hostLink, up) }

func (h *Host) setLink(w *World, name string, up bool) error {
	set := (*netlink.Handle).LinkSetDown
	if up {
		set = (*netlink.Handle).LinkSetUp
	}
	ends := []struct {
		links *netlink.Handle
		name  string
	}{{h.links, name}, {w.links, h.portOf(name)}}
	for _, end := range ends {
		link, err := end.links.LinkByName(end.name)
		if err != nil {
			return err
		}
		if err := set(end.links, link); err != nil {
			return err
		}
	}
	if !up {
		return nil
	}
	for _, end := range ends {
		ok := poll(5*time.Second, func() bool {
			link, err := end.links.LinkByName(end.name)
			return err == nil && link.Attrs().OperState == netlink.OperUp
		})
		if !ok {
			return fmt.Errorf("bring up %s of host %s: no carrier after 5s", end.name, h.name)
		}
	}
	return nil
}

// DefaultRoute sends what has no other route to via; the bridge's own
// addresses 10.66.0.1 and fd66::1 will do as a router that drops.
func (h *Host) DefaultRoute(via netip.Addr) {
	h.tb.Helper()
	link, err := h.links.LinkByName(hostLink)
	if err != nil {
		h.tb.Fatal(err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: via.AsSlice()}
	if err := h.links.RouteAdd(route); err != nil {
		h.tb.Fatalf("add default route of host %s via %s: %s", h.name, via, err)
	}
}

// Name is the name the test gave.
func (h *Host) Name() string { return h.name }

// NetnsName is the name ip-netns(8) knows the host by.
func (h *Host) NetnsName() string { return filepath.Base(h.path) }

// Path is the host's namespace file, under /run/netns.
func (h *Host) Path() string { return h.path }

// NS is the host's namespace; it is closed with the host.
func (h *Host) NS() *netns.Handle { return h.ns }

// Do runs fn in the host's namespace; see netns.Handle.Do for what fn may do.
func (h *Host) Do(fn func() error) error { return h.ns.Do(fn) }

// Addr4 and Addr6 are the host's first address of a family, or the zero Addr.
func (h *Host) Addr4() netip.Addr { return h.addr(netip.Addr.Is4) }
func (h *Host) Addr6() netip.Addr { return h.addr(netip.Addr.Is6) }

func (h *Host) addr(is func(netip.Addr) bool) netip.Addr {
	for _, p := range h.addrs {
		if is(p.Addr()) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// Dial dials an IP and port from the host, with an ordinary socket.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.ns.Do(func() error {
		var d net.Dialer
		d.SetMultipathTCP(false)
		var err error
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on an IP and port of the host until the test or the host
// ends. Multipath TCP is off, which is not Go's default.
func (h *Host) Listen(network, address string) net.Listener {
	h.tb.Helper()
	var ln net.Listener
	err := h.ns.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		var err error
		ln, err = lc.Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		h.tb.Fatalf("listen on host %s: %s", h.name, err)
	}
	h.OnClose(func() { ln.Close() })
	return ln
}

// ListenPacket opens an unconnected datagram socket until the test or the
// host ends.
func (h *Host) ListenPacket(network, address string) net.PacketConn {
	h.tb.Helper()
	var conn net.PacketConn
	err := h.ns.Do(func() error {
		var err error
		conn, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		h.tb.Fatalf("listen on host %s: %s", h.name, err)
	}
	h.OnClose(func() { conn.Close() })
	return conn
}

// OnClose has fn called when the host ends, the last one first.
func (h *Host) OnClose(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onClose = append(h.onClose, fn)
}

// Close ends the host before the test does: its programs are killed, its
// sockets closed, its namespace unbound. Calling it again does nothing.
func (h *Host) Close() {
	h.closer.Do(func() {
		h.spawn.close()
		h.mu.Lock()
		fns := h.onClose
		h.onClose = nil
		h.mu.Unlock()
		for i := len(fns) - 1; i >= 0; i-- {
			fns[i]()
		}
		// The link goes now and not when the kernel gets to the namespace, so
		// that an address may be given to another host at once.
		if h.links != nil {
			for _, name := range []string{hostLink, peerLink} {
				if link, err := h.links.LinkByName(name); err == nil {
					h.links.LinkDel(link)
				}
			}
			h.links.Close()
		}
		if err := killMembers(h.path); err != nil {
			h.tb.Error(err)
		}
		h.ns.Close()
		if err := removeNetns(h.path); err != nil {
			h.tb.Error(err)
		}
	})
}

// NetnsAlive reports whether the namespace with this inode still has a process,
// a socket of one, or a bound file in this mount namespace. It is how a test
// sees that nothing holds a closed host.
func NetnsAlive(inode uint64) bool {
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", netnsDir + "/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			var st unix.Stat_t
			if unix.Stat(p, &st) == nil && st.Ino == inode {
				return true
			}
		}
	}
	return false
}
