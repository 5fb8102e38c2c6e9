package datapath

import (
	"errors"
	"net/netip"
	"strings"
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

// dialOdd connects and returns the socket, which the test closes.
func dialOdd(t *testing.T, from *testutil.Host, o oddSocket) (fd int, local, peer netip.AddrPort, err error) {
	t.Helper()
	err = from.Do(func() error {
		fd, err = unix.Socket(o.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, o.proto)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if o.prepare != nil {
			if err := o.prepare(fd); err != nil {
				return err
			}
		}
		connect := o.connect
		if connect == nil {
			connect = unix.Connect
		}
		if err := connect(fd, o.to); err != nil {
			return err
		}
		unix.Write(fd, []byte("x")) // what sends the SYN of a deferred connect
		a, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		b, err := unix.Getpeername(fd)
		if err != nil {
			return err
		}
		local, peer = sockaddr(a), sockaddr(b)
		return nil
	})
	return fd, local, peer, err
}

// readName reads what a named server says first.
func readName(t *testing.T, fd int) string {
	t.Helper()
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 4})
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
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
			fd, local, peer, err := dialOdd(t, web, o)
			if errors.Is(err, unix.EPROTONOSUPPORT) && o.proto == unix.IPPROTO_MPTCP {
				t.Skip("a kernel without MPTCP")
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := sockaddr(o.to); peer != want {
				t.Errorf("getpeername shows %s, want %s", peer, want)
			}
			if o.direct {
				if got := readName(t, fd); got != "a" && got != "a6" {
					t.Errorf("%q answers, want the endpoint", got)
				}
				return
			}
			unmapped := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
			s := k.arrives(t, unmapped(local), unmapped(peer))
			k.isFrom(t, s, task.ID)
			if n, err := s.Read(make([]byte, 1)); n != 1 {
				t.Errorf("nothing comes: %v", err)
			}
		})
	}
	r.noAdmissions()
	r.waitIdle()
}

// Connections to several VIPs may share a local port.
func TestForwardSharedPort(t *testing.T) {
	r, web, task := forwardRig(t)
	r.apply(func(d *plan.Desired) { d.Services = append(d.Services, proxied(service(2, lb.TCP))) })
	k := r.forward(web, task.NetnsCookie)
	bind := func(port int) func(int) error {
		return func(fd int) error {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
			return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		}
	}
	_, local, _, err := dialOdd(t, web, oddSocket{family: unix.AF_INET, to: &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 80}, prepare: bind(0)})
	if err != nil {
		t.Fatal(err)
	}
	_, again, _, err := dialOdd(t, web, oddSocket{family: unix.AF_INET, to: &unix.SockaddrInet4{Addr: vip4(2).As4(), Port: 80}, prepare: bind(int(local.Port()))})
	if err != nil || again != local {
		t.Fatalf("connected from %s (%v), want %s", again, err, local)
	}
	for id := range lb.ServiceID(2) {
		k.isFrom(t, k.arrives(t, local, netip.AddrPortFrom(vip4(id+1), 80)), task.ID)
	}
}
