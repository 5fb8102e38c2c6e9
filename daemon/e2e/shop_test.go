package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// shop is the usual world: client web, which may use prod, its resolver, and
// servers that listen on port 8080.
type shop struct {
	*node
	web     *testutil.Host
	dns     *upstream
	servers map[string]*testutil.Host
}

func newShop(tb testing.TB, servers ...string) *shop {
	tb.Helper()
	n := newNode(tb)
	s := &shop{node: n, web: n.w.Host("web"), dns: n.upstream("outside.example"), servers: map[string]*testutil.Host{}}
	for _, name := range servers {
		h := n.w.Host(name)
		h.ServeName(name, at(h.Addr4(), 8080))
		s.servers[name] = h
	}
	s.join(s.web, "prod")
	return s
}

// join makes a host a client with the shop's resolver.
func (s *shop) join(h *testutil.Host, namespaces string, more ...string) {
	h.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	s.client(h, namespaces, more...)
}

// another adds a client.
func (s *shop) another(name, namespaces string) *testutil.Host {
	s.Helper()
	h := s.w.Host(name)
	s.join(h, namespaces)
	return h
}

// endpoint is a server's address and port.
func (s *shop) endpoint(server string) netip.AddrPort {
	return netip.AddrPortFrom(s.servers[server].Addr4(), 8080)
}

// catalog writes the services of prod; $a stands for the address of server a.
func (s *shop) catalog(services string) {
	s.Helper()
	for name, h := range s.servers {
		services = strings.ReplaceAll(services, "$"+name, h.Addr4().String())
	}
	s.write("catalog.yaml", "namespace: prod\nservices:\n"+services)
}

// service is a catalog entry named like its alias, on port 80, with endpoints
// on port 8080; an endpoint may have fields after its server: "a, weight: 3".
func service(name string, fields string, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - discoveryName: %s\n    clientAliases: [{dnsName: %s, port: 80}]\n", name, name)
	for line := range strings.Lines(fields) {
		fmt.Fprintf(&b, "    %s\n", strings.TrimSpace(line))
	}
	b.WriteString("    endpoints:\n")
	for _, e := range endpoints {
		server, more, _ := strings.Cut(e, ",")
		if more != "" {
			more = "," + more
		}
		fmt.Fprintf(&b, "      - {address: $%s, port: 8080%s}\n", server, more)
	}
	return b.String()
}

// begin writes config and catalog and starts the daemon.
func (s *shop) begin(services ...string) {
	s.Helper()
	s.configure()
	s.catalog(strings.Join(services, ""))
	s.start()
}

// at80 is the VIP of a service with its port.
func (s *shop) at80(name string) string {
	s.Helper()
	return at(s.vip(s.web, s.dns.Host, name), 80)
}

// held is a connection that a test keeps open.
type held struct {
	net.Conn
	server string
}

// hold opens a connection from a client and learns who answered.
func hold(tb testing.TB, h *testutil.Host, address string) *held {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := h.Dial(ctx, "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	a, err := testutil.AskConn(conn)
	if err != nil {
		tb.Fatal(err)
	}
	return &held{conn, a.Name}
}

// holdAt opens connections until one leads to the server.
func holdAt(tb testing.TB, h *testutil.Host, address, server string) *held {
	tb.Helper()
	for range 50 {
		c := hold(tb, h, address)
		if c.server == server {
			return c
		}
		c.Close()
	}
	tb.Fatalf("no connection to %s leads to %s", address, server)
	return nil
}

// works sends bytes there and back.
func (c *held) works() error {
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	var buf [4]byte
	_, err := c.Read(buf[:])
	return err
}

// ended waits until the connection is over, for as long as given.
func (c *held) ended(within time.Duration) error {
	c.SetDeadline(time.Now().Add(within))
	var buf [4]byte
	_, err := c.Read(buf[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection to %s is still there after %s", c.server, within)
	}
	return nil
}
