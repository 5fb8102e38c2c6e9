package datapath

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// oddSocket is a socket that net.Dialer does not make, and how it connects.
type oddSocket struct {
	name          string
	family, proto int
	to            unix.Sockaddr
	prepare       func(fd int) error
	connect       func(fd int, to unix.Sockaddr) error
	direct        bool // goes to the endpoint
}

func tcpOption(name, value int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, value) }
}

func bindTo(addr netip.Addr) func(int) error {
	return func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}) }
}

// oddConn is a connected socket. It is closed with the test, or before.
type oddConn struct {
	fd          int
	local, peer netip.AddrPort
	once        sync.Once
}

func (c *oddConn) close() { c.once.Do(func() { unix.Close(c.fd) }) }

// dialOdd connects. The socket is there after an error too.
func dialOdd(t *testing.T, from *testutil.Host, o oddSocket) (*oddConn, error) {
	t.Helper()
	c := &oddConn{fd: -1}
	return c, from.Do(func() (err error) {
		if c.fd, err = unix.Socket(o.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, o.proto); err != nil {
			return err
		}
		t.Cleanup(c.close)
		if o.prepare != nil {
			if err := o.prepare(c.fd); err != nil {
				return err
			}
		}
		connect := o.connect
		if connect == nil {
			connect = unix.Connect
		}
		if err := connect(c.fd, o.to); err != nil {
			return err
		}
		unix.Write(c.fd, []byte("x")) // what sends the SYN of a deferred connect
		local, err := unix.Getsockname(c.fd)
		if err != nil {
			return err
		}
		peer, err := unix.Getpeername(c.fd)
		if err != nil {
			return err
		}
		c.local, c.peer = sockaddr(local), sockaddr(peer)
		return nil
	})
}

// readName reads what a named server says first.
func readName(t *testing.T, c *oddConn) string {
	t.Helper()
	unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 4})
	buf := make([]byte, 64)
	n, err := unix.Read(c.fd, buf)
	if err != nil {
		t.Errorf("read a name: %s", err)
	}
	name, _, _ := strings.Cut(string(buf[:max(n, 0)]), " ")
	return name
}

// Whatever kind of socket calls, the forwarder sees the VIP and the caller,
// and the caller the VIP; one that cannot reach loopback goes to an endpoint.
func TestForwardOddSockets(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	plain := &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 80}
	mapped := &unix.SockaddrInet6{Addr: vip4(1).As16(), Port: 80}
	six := &unix.SockaddrInet6{Addr: vip6(1).As16(), Port: 80}
	toDevice := func(fd int) error { return unix.BindToDevice(fd, "eth0") }
	for _, o := range []oddSocket{
		{name: "mapped", family: unix.AF_INET6, to: mapped},
		{name: "mapped, bound to any", family: unix.AF_INET6, to: mapped,
			prepare: func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet6{}) }},
		{name: "IPv6", family: unix.AF_INET6, to: six},
		{name: "IPv6, bound", family: unix.AF_INET6, to: six,
			prepare: func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet6{Addr: web.Addr6().As16()}) }},
		{name: "bound to loopback", family: unix.AF_INET, to: plain, prepare: bindTo(netip.MustParseAddr("127.0.0.1"))},
		{name: "bound to the host's address", family: unix.AF_INET, to: plain, prepare: bindTo(web.Addr4())},
		{name: "bound to the VIP", family: unix.AF_INET, to: plain, prepare: bindTo(vip4(1))},
		{name: "multipath", family: unix.AF_INET, proto: unix.IPPROTO_MPTCP, to: plain},
		{name: "multipath IPv6", family: unix.AF_INET6, proto: unix.IPPROTO_MPTCP, to: six},
		{name: "multipath mapped", family: unix.AF_INET6, proto: unix.IPPROTO_MPTCP, to: mapped},
		{name: "deferred fast open", family: unix.AF_INET, to: plain, prepare: tcpOption(unix.TCP_FASTOPEN_CONNECT, 1)},
		{name: "fast open", family: unix.AF_INET, to: plain,
			connect: func(fd int, to unix.Sockaddr) error { return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, to) }},
		{name: "connected again", family: unix.AF_INET, to: plain, prepare: func(fd int) error {
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 81}); !errors.Is(err, unix.ECONNREFUSED) {
				return err
			}
			return nil
		}},
		{name: "bound to a device", family: unix.AF_INET, to: plain, prepare: toDevice, direct: true},
		{name: "IPv6 bound to a device", family: unix.AF_INET6, to: six, prepare: toDevice, direct: true},
	} {
		t.Run(o.name, func(t *testing.T) {
			c, err := dialOdd(t, web, o)
			if errors.Is(err, unix.EPROTONOSUPPORT) && o.proto == unix.IPPROTO_MPTCP {
				t.Skip("a kernel without MPTCP")
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := sockaddr(o.to); c.peer != want {
				t.Errorf("getpeername shows %s, want %s", c.peer, want)
			}
			if o.direct {
				if got := readName(t, c); got != "a" && got != "a6" {
					t.Errorf("%q answers, want the endpoint", got)
				}
				return
			}
			unmapped := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
			s := k.arrives(t, unmapped(c.local), unmapped(c.peer))
			k.isFrom(t, s, task.ID)
			if n, err := s.Read(make([]byte, 1)); n != 1 {
				t.Errorf("nothing comes: %v", err)
			}
		})
	}
	r.noAdmissions()
	r.waitIdle()
}

// Connections to several VIPs may share a local port. One that fails before
// its SYN, for the port is taken, harms neither and counts for no endpoint.
func TestForwardSharedPort(t *testing.T) {
	r, web, task := forwardRig(t)
	r.apply(func(d *plan.Desired) { d.Services = append(d.Services, proxied(service(2, lb.TCP))) })
	k := r.forward(web, task.NetnsCookie)
	dialFrom := func(id lb.ServiceID, port uint16) (*oddConn, error) {
		return dialOdd(t, web, oddSocket{family: unix.AF_INET, to: &unix.SockaddrInet4{Addr: vip4(id).As4(), Port: 80},
			prepare: func(fd int) error {
				if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
					return err
				}
				return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(port)})
			}})
	}
	one, err := dialFrom(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	two, err := dialFrom(2, one.local.Port())
	if err != nil || two.local != one.local {
		t.Fatalf("connected from %s (%v), want %s", two.local, err, one.local)
	}
	taken, err := dialFrom(1, one.local.Port())
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatalf("the same connection again: %v, want EADDRNOTAVAIL", err)
	}
	for id := range lb.ServiceID(2) {
		k.isFrom(t, k.arrives(t, one.local, netip.AddrPortFrom(vip4(id+1), 80)), task.ID)
	}
	for _, c := range []*oddConn{one, two, taken} {
		c.close()
	}
	r.waitIdle()
	if got := r.dp.Service(1).Failures; slices.Max(got) != 0 {
		t.Errorf("failures by reason %v, want none", got)
	}
}
