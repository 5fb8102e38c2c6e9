package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// One service of two endpoints, seen from a client, a stranger and a client of
// another namespace. The negative control is the same table with the programs
// detached: then nobody answers at a VIP.
func TestConnect(t *testing.T) {
	r := newRig(t)
	web, stranger, other := r.w.Host("web"), r.w.Host("stranger"), r.w.Host("other")
	a, b := r.w.Host("a"), r.w.Host("b")
	a.ServeName("a", at(a.Addr4(), 8080))
	b.ServeName("b", at(b.Addr4(), 8080))
	a.ServeName("a6", at(a.Addr6(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{
			service(1, lb.TCP, at(a.Addr4(), 8080), at(a.Addr6(), 8080)),
			service(2, lb.UDP, at(a.Addr4(), 8080), at(a.Addr6(), 8080)),
			service(3, lb.TCP),
		}
		out := r.task(other, 2)
		out.Scope[0] = 2
		d.Tasks = []*plan.Task{r.task(web, 1), out}
	})
	cases := []struct {
		name             string
		from             *testutil.Host
		network, address string
		want             string
		errno            error
	}{
		{"tcp4", web, "tcp", at(vip4(1), 80), "a", nil},
		{"tcp6", web, "tcp", at(vip6(1), 80), "a6", nil},
		{"udp4", web, "udp", at(vip4(2), 80), "a", nil},
		{"udp6", web, "udp", at(vip6(2), 80), "a6", nil},
		{"no endpoint", web, "tcp", at(vip4(3), 80), "", unreachable()},
		{"no endpoint v6", web, "tcp", at(vip6(3), 80), "", unreachable()},
		{"no frontend", web, "tcp", at(vip4(1), 81), "", syscall.ECONNREFUSED},
		{"no frontend v6", web, "tcp", at(vip6(1), 81), "", syscall.ECONNREFUSED},
		{"wrong protocol", web, "tcp", at(vip4(2), 80), "", syscall.ECONNREFUSED},
		{"out of scope", other, "tcp", at(vip4(1), 80), "", syscall.EPERM},
		{"out of scope udp", other, "udp", at(vip4(2), 80), "", syscall.EPERM},
		{"stranger", stranger, "tcp", at(vip4(1), 80), "", syscall.ECONNREFUSED},
		{"endpoint itself", web, "tcp", at(b.Addr4(), 8080), "b", nil},
	}
	for _, tc := range cases {
		ans, err := tc.from.Ask(context.Background(), tc.network, tc.address)
		if ans.Name != tc.want || (tc.errno != nil && !errors.Is(err, tc.errno)) {
			t.Errorf("%s: %q answers (%v), want %q (%v)", tc.name, ans.Name, err, tc.want, tc.errno)
			continue
		}
		if err != nil {
			continue
		}
		if ans.Remote != netip.MustParseAddrPort(tc.address) {
			t.Errorf("%s: getpeername shows %s, want %s", tc.name, ans.Remote, tc.address)
		}
		if ans.Peer != ans.Local {
			t.Errorf("%s: server saw %s, client is %s", tc.name, ans.Peer, ans.Local)
		}
	}

	r.close()
	if _, err := Unload(r.p.BPFFS); err != nil {
		t.Fatal(err)
	}
	for _, tc := range cases {
		if tc.want == "" || tc.name == "endpoint itself" {
			continue
		}
		if got, _ := tc.from.Ask(context.Background(), tc.network, tc.address); got.Name != "" {
			t.Errorf("%s: %q answers with the programs detached", tc.name, got.Name)
		}
	}
}

// unreachable is what a service without endpoints gives: kernels before 5.18
// cannot choose the errno.
func unreachable() error {
	if haveSetRetval() {
		return syscall.EHOSTUNREACH
	}
	return syscall.ENETUNREACH
}

// An unconnected UDP socket sees answers come from where it asked, and stays
// on one endpoint.
func TestUnconnectedUDP(t *testing.T) {
	r := newRig(t)
	web, a, b := r.w.Host("web"), r.w.Host("a"), r.w.Host("b")
	a.ServeName("a", at(a.Addr4(), 53))
	b.ServeName("b", at(b.Addr4(), 53))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.UDP, at(a.Addr4(), 53), at(b.Addr4(), 53))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	vip := netip.AddrPortFrom(vip4(1), 80)
	for _, network := range []string{"udp4", "udp"} {
		seen := map[string]bool{}
		for range 16 {
			address := "0.0.0.0:0"
			if network == "udp" {
				address = "[::]:0"
			}
			conn := web.ListenPacket(network, address)
			first, err := testutil.AskPacket(conn, vip)
			if err != nil {
				t.Fatalf("%s: %s", network, err)
			}
			again, err := testutil.AskPacket(conn, vip)
			if err != nil || again.Name != first.Name {
				t.Fatalf("%s: socket moved from %s to %s (%v)", network, first.Name, again.Name, err)
			}
			if first.Remote != vip {
				t.Errorf("%s: answer came from %s, want %s", network, first.Remote, vip)
			}
			direct := netip.AddrPortFrom(a.Addr4(), 53)
			if got, err := testutil.AskPacket(conn, direct); err != nil || got.Remote != direct {
				t.Errorf("%s: direct answer came from %s (%v), want %s", network, got.Remote, err, direct)
			}
			seen[first.Name] = true
			conn.Close()
		}
		if len(seen) != 2 {
			t.Errorf("%s: 16 sockets reached %v, want both endpoints", network, seen)
		}
	}
}

// Sockets that net.Dialer does not make.
func TestOddSockets(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080)), service(2, lb.UDP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	mapped := func(id lb.ServiceID) unix.Sockaddr { return &unix.SockaddrInet6{Addr: vip4(id).As16(), Port: 80} }
	plain := &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 80}
	for _, tc := range []struct {
		name                     string
		family, kind, proto, tfo int
		to                       unix.Sockaddr
		peer                     bool // getpeername must show the VIP
	}{
		{"mapped tcp", unix.AF_INET6, unix.SOCK_STREAM, 0, 0, mapped(1), true},
		{"mapped udp", unix.AF_INET6, unix.SOCK_DGRAM, 0, 0, mapped(2), true},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, 0, plain, false},
		{"fast open connect", unix.AF_INET, unix.SOCK_STREAM, 0, unix.TCP_FASTOPEN_CONNECT, plain, true},
	} {
		var got string
		err := web.Do(func() error {
			fd, err := unix.Socket(tc.family, tc.kind, tc.proto)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if tc.tfo != 0 {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tc.tfo, 1); err != nil {
					return err
				}
			}
			if err := unix.Connect(fd, tc.to); err != nil {
				return err
			}
			if _, err := unix.Write(fd, []byte("who")); err != nil {
				return err
			}
			peer, err := unix.Getpeername(fd)
			if err != nil {
				return err
			}
			if tc.peer && sockaddr(peer) != sockaddr(tc.to) {
				t.Errorf("%s: getpeername shows %v, want %v", tc.name, peer, tc.to)
			}
			buf := make([]byte, 256)
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
			n, err := unix.Read(fd, buf)
			got = string(buf[:max(n, 0)])
			return err
		})
		if errors.Is(err, unix.EPROTONOSUPPORT) && tc.proto == unix.IPPROTO_MPTCP {
			continue // Debian's 5.10 has no MPTCP
		}
		if err != nil || !strings.HasPrefix(got, "a ") {
			t.Errorf("%s: %q answers (%v), want a", tc.name, got, err)
		}
	}
	r.waitIdle()
}

func sockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// The state of every connection goes when the connection does, however it ends,
// and what is counted is what happened.
func TestStateGoes(t *testing.T) {
	r := newRig(t)
	web, cron, a := r.w.Host("web"), r.w.Host("cron"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{
			service(1, lb.TCP, at(a.Addr4(), 8080)),
			service(2, lb.TCP, at(a.Addr4(), 9)),                          // refuses
			service(3, lb.TCP, at(netip.MustParseAddr("203.0.113.1"), 9)), // no route: fails before the SYN
		}
		d.Tasks = []*plan.Task{r.task(web, 1), r.task(cron, 2)}
	})
	for range 5 {
		if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
			t.Fatalf("%q answers", got)
		}
		for _, id := range []lb.ServiceID{2, 3} {
			if _, err := web.Ask(context.Background(), "tcp", at(vip4(id), 80)); err == nil {
				t.Fatalf("service %d answers", id)
			}
		}
	}
	if got := testutil.WhoAnswers(t, cron, "tcp", at(vip4(1), 80)); got != "a" {
		t.Fatalf("%q answers", got)
	}
	r.waitIdle()
	for id, want := range map[lb.EndpointID]connectEndpointStats{
		101: {Opened: 6, Established: 6},
		201: {Opened: 5, Failed: 5, Struck: 1},
		301: {Failed: 5},
	} {
		got := r.dp.shared.stats[id]
		got.BytesSent, got.BytesReceived = 0, 0
		if got != want {
			t.Errorf("endpoint %d: counted %+v, want %+v", id, got, want)
		}
	}
	all := r.dp.Endpoint(101)
	callers, err := r.dp.CallerBytes()
	one := callers[Caller{2, 1}] // each connection moves the same
	if err != nil || len(callers) != 2 || one.Received == 0 ||
		callers[Caller{1, 1}] != (Bytes{5 * one.Sent, 5 * one.Received}) || all.Sent != 6*one.Sent || all.Received != 6*one.Received {
		t.Errorf("bytes by caller %v (%v), of the endpoint %d and %d", callers, err, all.Sent, all.Received)
	}
	if n := r.dp.shared.services[2].Failures[connectFailureFAILURE_REFUSED]; n != 5 {
		t.Errorf("%d refused connects counted, want 5", n)
	}
	if n := r.dp.shared.services[3].Failures[connectFailureFAILURE_LOCAL]; n != 5 {
		t.Errorf("%d local failures counted, want 5", n)
	}
}

// TestCallersAreNotCounted: where nobody asks for what callers have had, no
// connection pays for it.
func TestCallersAreNotCounted(t *testing.T) {
	r := newRigWith(t, func(p *Params) { p.CountCallers = false })
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{service(1, lb.TCP, at(a.Addr4(), 8080))}
		d.Tasks = []*plan.Task{r.task(web, 1)}
	})
	if got := testutil.WhoAnswers(t, web, "tcp", at(vip4(1), 80)); got != "a" {
		t.Fatalf("%q answers", got)
	}
	r.waitIdle()
	if callers, err := r.dp.CallerBytes(); err != nil || len(callers) != 0 || r.dp.Endpoint(101).Received == 0 {
		t.Errorf("bytes by caller %v (%v), of the endpoint %d", callers, err, r.dp.Endpoint(101).Received)
	}
}

// waitIdle waits until no connection is tracked, counted or charged.
func (r *rig) waitIdle() {
	r.tb.Helper()
	testutil.Eventually(r.tb, 30*time.Second, func() error {
		for e, err := range all[uint64, connectConnection](r.dp.objs.ConnectionsV1) {
			if err != nil {
				return err
			}
			return fmt.Errorf("still tracked: %+v", e.value)
		}
		for id, s := range r.dp.shared.stats {
			if s.Active != 0 {
				return fmt.Errorf("endpoint %d: %d active", id, int64(s.Active))
			}
		}
		for id, n := range r.dp.shared.taskConnections {
			if n != 0 {
				return fmt.Errorf("task %d holds %d", id, int64(n))
			}
		}
		return nil
	})
}
