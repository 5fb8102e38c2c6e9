package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/testutil"
)

// node is a machine that connectd runs on, with the world around it.
type node struct {
	testing.TB
	w       *testutil.World
	host    *testutil.Host // where the daemon runs: 10.66.0.2
	dir     string
	bpffs   string
	extra   string   // further lines of the config
	clients []string // lines of the config
	daemon  *process // the latest
	runs    int
	env     []string // of the daemon, besides the test's own
	binary  string   // "" is the one built from this tree
	wrapper []string // what the daemon is started through, such as setpriv
}

func (n *node) program() string {
	if n.binary != "" {
		return n.binary
	}
	return os.Getenv(binaryEnv)
}

func newNode(tb testing.TB) *node {
	tb.Helper()
	testutil.RequireRoot(tb)
	return newNodeIn(tb, testutil.NewWorld(tb), "node")
}

// newNodeIn is a node beside others of one world.
func newNodeIn(tb testing.TB, w *testutil.World, name string) *node {
	tb.Helper()
	dir, err := os.MkdirTemp("", "cde2e") // t.TempDir is too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{TB: tb, dir: dir, bpffs: testutil.BPFFS(tb), w: w}
	n.host = w.Host(name)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// write replaces a file in the node's folder at once, as documented.
func (n *node) write(name, content string) {
	n.Helper()
	path := n.path(name)
	if err := os.WriteFile(path+".tmp", []byte(content), 0o644); err != nil {
		n.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		n.Fatal(err)
	}
}

// client adds a host to the config as a client named like it. more are
// further fields, such as `hostsFile: /x`.
func (n *node) client(h *testutil.Host, namespaces string, more ...string) {
	n.clients = append(n.clients, fmt.Sprintf("{%s}", strings.Join(append(
		[]string{"name: " + h.Name(), "netns: " + h.Path(), "namespaces: [" + namespaces + "]"}, more...), ", ")))
}

// configure writes the config; the catalog is every catalog*.yaml.
func (n *node) configure() {
	n.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "stateDir: %s\nbpffs: %s\ncontrolSocket: %s\n", n.path("state"), n.bpffs, n.path("sock"))
	// The maps of one test need not hold 65,536 connections.
	b.WriteString("limits: {maxConnections: 32768, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}\n")
	b.WriteString(n.extra)
	b.WriteString("clients:\n")
	for _, c := range n.clients {
		fmt.Fprintf(&b, "  - %s\n", c)
	}
	b.WriteString("catalog: {files: [\"catalog*.yaml\"]}\n")
	n.write("connectd.yaml", b.String())
}

func (n *node) control() *control.Client { return control.NewClient(n.path("sock")) }

func (n *node) status() *control.Status {
	n.Helper()
	s, err := n.control().Status(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	return s
}

// endpoints returns the endpoints of a service by address.
func (n *node) endpoints(service string) map[netip.AddrPort]control.Endpoint {
	n.Helper()
	out, err := n.known(service)
	if err != nil {
		n.Fatal(err)
	}
	return out
}

// known are the endpoints of a service, an error where there is no such
// service, as before the first plan with its task.
func (n *node) known(service string) (map[netip.AddrPort]control.Endpoint, error) {
	list, err := n.control().Endpoints(context.Background(), control.EndpointFilter{Service: service})
	out := make(map[netip.AddrPort]control.Endpoint, len(list))
	for _, e := range list {
		out[e.Address] = e
	}
	return out, err
}

// eventually waits for a condition on real state.
func (n *node) eventually(within time.Duration, cond func() error) {
	n.Helper()
	testutil.Eventually(n, within, cond)
}

// inState waits until an endpoint is in a state.
func (n *node) inState(service string, at netip.AddrPort, state string) {
	n.Helper()
	n.eventually(20*time.Second, func() error {
		list, err := n.known(service)
		if e := list[at]; err != nil || e.State != state {
			return fmt.Errorf("endpoint %s of %s is %q (%s), want %q: %v", at, service, e.State, e.Reason, state, err)
		}
		return nil
	})
}

// cli runs a command of the program on the node.
func (n *node) cli(args ...string) (output string, code int) {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	out, err := n.host.Command(ctx, n.program(), append(args, "--config", n.path("connectd.yaml"))...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(out), code
}

// vip is what a name resolves to for a client whose resolver is the server.
func (n *node) vip(h, server *testutil.Host, name string) netip.Addr {
	n.Helper()
	var got netip.Addr
	n.eventually(10*time.Second, func() (err error) {
		got, err = lookup(h, server, name)
		if err == nil && !vips.Contains(got) {
			err = fmt.Errorf("%s resolves to %s, want a VIP", name, got)
		}
		return err
	})
	return got
}

var vips = netip.MustParsePrefix("127.254.0.0/16")

// lookup asks with Go's resolver from inside the client.
func lookup(h, server *testutil.Host, name string) (netip.Addr, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Dial(ctx, network, net.JoinHostPort(server.Addr4().String(), "53"))
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addrs, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0].Unmap(), nil
}

// spread asks so often and counts who answered; errors count by their text.
func spread(h *testutil.Host, network, address string, times int) map[string]int {
	got := make(map[string]int)
	for range times {
		a, err := h.Ask(context.Background(), network, address)
		if err != nil {
			a.Name = err.Error()
		}
		got[a.Name]++
	}
	return got
}

func at(addr netip.Addr, port int) string {
	return netip.AddrPortFrom(addr, uint16(port)).String()
}

func udpAddr(addr netip.Addr, port int) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port)))
}
