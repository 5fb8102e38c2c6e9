package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace without a name, with lo up. It ends
// with its last user, also after a crash.
func newNamespace(t *testing.T) *netns.Handle {
	t.Helper()
	path, opened, ended := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- netns.OnThread(func() error {
			defer close(path)
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			path <- fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
			<-opened
			return nil
		})
	}()
	h, err := netns.Open(<-path)
	close(opened)
	if err := errors.Join(err, <-ended); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	inside(t, h, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return h
}

func inside(t *testing.T, h *netns.Handle, fn func() error) {
	t.Helper()
	if err := h.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func probeFrom(t *testing.T, h *netns.Handle, addr netip.AddrPort) outcome {
	t.Helper()
	hc := &lb.HealthCheck{Protocol: lb.CheckTCP, Timeout: 300 * time.Millisecond}
	ctx, cancel := context.WithTimeout(t.Context(), hc.Timeout)
	defer cancel()
	return newProtocols().probe(ctx, attempt{HealthCheck: hc, from: h, addr: addr})
}

// The same address answers in the caller's namespace only.
func TestProbeFromCaller(t *testing.T) {
	h := newNamespace(t)
	addr := closedPort(t)
	var l net.Listener
	inside(t, h, func() (err error) { l, err = net.Listen("tcp", addr.String()); return })
	defer l.Close()
	want(t, probeFrom(t, h, addr), resultSuccess, "connected")
	want(t, probeFrom(t, nil, addr), resultConnect, "connection refused")
}

func TestBlackHole(t *testing.T) {
	h := newNamespace(t)
	inside(t, h, func() error {
		// Nobody at the other end answers ARP for the address probed.
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "hole0"}, PeerName: "hole1"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		peer, err := netlink.LinkByName("hole1")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(link), netlink.LinkSetUp(peer))
	})
	want(t, probeFrom(t, h, netip.MustParseAddrPort("192.0.2.9:80")), resultTimeout, "timeout after 300ms connecting")
	want(t, probeFrom(t, h, netip.MustParseAddrPort("198.51.100.1:80")), resultConnect, "connect: network is unreachable")
}

// tcp_fwmark_accept shows a server the mark of its client's packets.
func TestProbeIsMarked(t *testing.T) {
	h := newNamespace(t)
	var l net.Listener
	inside(t, h, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fwmark_accept", []byte("1"), 0); err != nil {
			return err
		}
		var err error
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	defer l.Close()
	want(t, probeFrom(t, h, netip.MustParseAddrPort(l.Addr().String())), resultSuccess, "connected")
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); mark != netns.Mark {
			t.Errorf("the probe's mark is %#x, want %#x (%v)", mark, netns.Mark, err)
		}
	})
}

func TestNamespaceThatCannotBeEnteredIsALocalFault(t *testing.T) {
	h := newNamespace(t)
	h.Close()
	want(t, probeFrom(t, h, netip.MustParseAddrPort("127.0.0.1:80")), resultLocal, "enter netns")
}
