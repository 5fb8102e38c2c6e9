package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"connectd/pkg/testutil"
)

// TestIPv6: a service of IPv6 endpoints has an AAAA and no A; names and
// connections work as with IPv4, and the application sees the VIP.
func TestIPv6(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	server := s.servers["a"]
	server.ServeName("six", netip.AddrPortFrom(server.Addr6(), 8080).String())
	s.begin(fmt.Sprintf(`  - discoveryName: six
    clientAliases: [{dnsName: six, port: 80}]
    endpoints: [{address: "%[1]s", port: 8080}]
  - discoveryName: six-udp
    protocol: udp
    clientAliases: [{dnsName: six, port: 81}]
    endpoints: [{address: "%[1]s", port: 8080}]
`, server.Addr6()))
	vip := askAAAA(t, s, "six.prod")
	if !netip.MustParsePrefix("fd63:6f6e:6e65:6374::/64").Contains(vip) {
		t.Fatalf("six is %s", vip)
	}
	if a, err := lookup(s.web, s.dns.Host, "six"); err == nil {
		t.Errorf("six has an A: %s", a)
	}
	vip = askAAAA(t, s, "six")
	for network, port := range map[string]uint16{"tcp": 80, "udp": 81} {
		a, err := s.web.Ask(t.Context(), network, netip.AddrPortFrom(vip, port).String())
		if err != nil || a.Name != "six" || a.Remote != netip.AddrPortFrom(vip, port) || a.Peer.Addr() != s.web.Addr6() {
			t.Errorf("%s: %+v, %v", network, a, err)
		}
	}
	a, err := testutil.AskPacket(s.web.ListenPacket("udp6", "[::]:0"), netip.AddrPortFrom(vip, 81))
	if err != nil || a.Name != "six" || a.Remote != netip.AddrPortFrom(vip, 81) {
		t.Errorf("unconnected: %+v, %v", a, err)
	}
}

// askAAAA returns the address of a name that has one.
func askAAAA(t *testing.T, s *shop, name string) (addr netip.Addr) {
	t.Helper()
	msg, err := askRaw(s.web, "udp", at(s.dns.Addr4(), 53), rawQuery(name, byte(dnsmessage.TypeAAAA)))
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil || len(m.Answers) != 1 {
		t.Fatalf("AAAA of %s: %+v, %v", name, m, err)
	}
	return netip.AddrFrom16(m.Answers[0].Body.(*dnsmessage.AAAAResource).AAAA)
}

// TestConnectedResolverSocket: a UDP socket that a process connected to its
// resolver, as c-ares and musl do, while connectd goes in each way it can.
func TestConnectedResolverSocket(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	s.vip(s.web, s.dns.Host, "orders")
	query := rawQuery("orders", 1)
	ask := func(conn net.Conn) (netip.Addr, error) {
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Write(query); err != nil {
			return netip.Addr{}, err
		}
		buf := make([]byte, 512)
		size, err := conn.Read(buf)
		if err != nil {
			return netip.Addr{}, err
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:size]); err != nil || len(m.Answers) != 1 {
			return netip.Addr{}, err
		}
		return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A), nil
	}
	connect := func() net.Conn {
		t.Helper()
		conn, err := s.web.Dial(context.Background(), "udp", at(s.dns.Addr4(), 53))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if got, err := ask(conn); err != nil || !vips.Contains(got) {
			t.Fatalf("orders is %s, %v", got, err)
		}
		if got := conn.RemoteAddr().String(); got != at(s.dns.Addr4(), 53) {
			t.Errorf("the socket's peer is %s", got)
		}
		return conn
	}
	fails := func(conn net.Conn, how string) {
		t.Helper()
		// Refused is what it would be for ever, as nobody is there.
		if got, err := ask(conn); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %s, %v; want the socket ended, on which resolvers open another", how, got, err)
		}
	}

	// Killed: refused, and the same socket is served again by the next one.
	conn := connect()
	s.daemon.kill()
	if _, err := ask(conn); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("killed: %v", err)
	}
	s.start()
	if got, err := ask(conn); err != nil || !vips.Contains(got) {
		t.Errorf("started again: %s, %v", got, err)
	}
	s.daemon.stop()
	fails(conn, "stopped")
	s.start()
	conn = connect()
	s.clients = []string{"{name: nobody, cgroup: " + testutil.NewCgroup(t).Path() + ", namespaces: [prod]}"}
	s.configure()
	s.eventually(5*time.Second, func() error {
		if _, err := lookup(s.web, s.dns.Host, "orders"); err == nil {
			return errors.New("web still gets the name")
		}
		return nil
	})
	// The name goes from the kernel first, the socket a moment later.
	s.eventually(5*time.Second, func() error {
		if got, err := ask(conn); err == nil {
			return fmt.Errorf("still answered: %s", got)
		}
		return nil
	})
	fails(conn, "detached")
}

// TestGracefulStopLosesNoQuery: single datagrams, each on a socket of its own,
// are all answered by somebody while the daemon stops and starts.
func TestGracefulStopLosesNoQuery(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.dns.knows("orders")
	s.begin(service("orders", "", "a"))
	s.vip(s.web, s.dns.Host, "orders")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var asked atomic.Int64
	failures := make(chan error, 4)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for ctx.Err() == nil {
				if _, err := askRaw(s.web, "udp", at(s.dns.Addr4(), 53), rawQuery("orders", 1)); err != nil {
					failures <- err
					return
				}
				asked.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		want := asked.Load() + 100
		s.eventually(20*time.Second, func() error {
			if n := asked.Load(); n < want && len(failures) == 0 {
				return fmt.Errorf("%d of %d questions answered", n, want)
			}
			return nil
		})
	}
	for range 3 {
		more()
		s.daemon.stop()
		more()
		s.start()
	}
	more()
	cancel()
	workers.Wait()
	close(failures)
	for err := range failures {
		t.Errorf("a query was lost: %s", err)
	}
}
