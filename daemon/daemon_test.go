package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// The daemon runs in the machine's own namespace here, which has no way to the
// world's hosts: probes go out from the caller's.

// The main job: a name leads to a healthy endpoint, from a client that
// resolves with its own resolver.
func TestNameLeadsToEndpoint(t *testing.T) {
	n := newNode(t)
	web, a, b, dns := n.w.Host("web"), n.w.Host("a"), n.w.Host("b"), n.w.Host("dns")
	a.ServeName("a", netip.AddrPortFrom(a.Addr4(), 8080).String())
	b.ServeName("b", netip.AddrPortFrom(b.Addr4(), 8080).String())
	web.ResolvConf("nameserver " + dns.Addr4().String() + "\n")
	n.configure(testutil.BPFFS(t), fmt.Sprintf("  - {name: web, netns: %s, namespaces: [prod]}\n", web.Path()))
	catalog := func(second string) {
		n.write("catalog.yaml", fmt.Sprintf(`namespace: prod
services:
  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    healthCheck: {protocol: tcp, from: caller, intervalSeconds: 0.1, timeoutSeconds: 0.1, healthyThreshold: 1, unhealthyThreshold: 1}
    endpoints:
      - {address: %s, port: 8080}
      - {address: %s, port: 8080}
%s`, a.Addr4(), b.Addr4(), second))
	}
	catalog("")
	n.start()
	n.eventuallySeen(web, "orders:80", "a b") // once probes have found both
	if got := n.d.health.Stats(); got.Local > 0 {
		t.Errorf("%d probes failed on this side", got.Local)
	}
	if got := n.seen(web, "orders:80", 20); got != "a b" {
		t.Errorf("orders leads to %q, want a b", got)
	}
	if got := n.seen(web, "orders.prod:80", 20); got != "a b" {
		t.Errorf("orders.prod leads to %q, want a b", got)
	}
	catalog(fmt.Sprintf("  - discoveryName: cache\n    clientAliases: [{dnsName: cache, port: 6379}]\n    endpoints: [{address: %s, port: 8080}]\n", a.Addr4()))
	n.eventuallySeen(web, "cache:6379", "a")
	n.stop()
	if ips, err := n.resolve(web, "orders"); err == nil {
		t.Errorf("with the daemon stopped orders resolves to %v", ips)
	}
	n.start()
	if got := n.seen(web, "orders:80", 20); got != "a b" { // at once: verdicts are remembered
		t.Errorf("after a restart orders leads to %q, want a b", got)
	}
}

// resolve asks the client's own resolver, from inside its namespace.
func (n *node) resolve(h *testutil.Host, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := h.Command(ctx, "getent", "ahostsv4", name).Output()
	if err != nil {
		return nil, err
	}
	a, err := netip.ParseAddr(strings.Fields(string(out))[0])
	return []netip.Addr{a}, err
}

func (n *node) eventuallySeen(h *testutil.Host, target, want string) {
	n.tb.Helper()
	testutil.Eventually(n.tb, 15*time.Second, func() error {
		if got := n.seen(h, target, 20); got != want {
			return fmt.Errorf("%s leads to %q, want %q", target, got, want)
		}
		return nil
	})
}

// seen lists who answers in so many tries, sorted.
func (n *node) seen(h *testutil.Host, target string, tries int) string {
	host, port, _ := net.SplitHostPort(target)
	ips, err := n.resolve(h, host)
	if err != nil {
		return fmt.Sprintf("resolve: %s", err)
	}
	names := map[string]bool{}
	for range tries {
		names[testutil.WhoAnswers(n.tb, h, "tcp", net.JoinHostPort(ips[0].String(), port))] = true
	}
	var out []string
	for _, name := range []string{"", "a", "b", "c"} {
		if names[name] {
			out = append(out, name)
		}
	}
	return strings.Join(out, " ")
}
