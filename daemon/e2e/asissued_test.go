package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestFilesAsIssued runs the example files, which are those of the config
// contract: the addresses are theirs, only paths are this world's.
func TestFilesAsIssued(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	n := newNode(t)
	host := func(name, address string) *testutil.Host { return n.w.Host(name, netip.MustParsePrefix(address+"/24")) }
	web, cron := host("web", "10.66.0.20"), testutil.NewCgroup(t)
	resolver := n.upstream("outside.example")
	for _, h := range []*testutil.Host{web, n.host} {
		h.ResolvConf("nameserver " + resolver.Addr4().String() + "\n")
	}
	hosts := web.EtcFile("hosts", "127.0.0.1 localhost\n")
	for name, address := range map[string]string{"az1": "10.66.0.3", "az2": "10.66.0.4"} {
		serveHTTP(t, host(name, address), name, address+":8080")
	}
	host("cache", "10.66.0.5").ServeName("cache", "10.66.0.5:6379")
	host("udp", "10.66.0.6").ServeName("udp", "10.66.0.6:53")

	paths := strings.NewReplacer(
		"/var/lib/connectd", n.path("state"), "/sys/fs/bpf/connectd", n.bpffs, "/run/connectd/connectd.sock", n.path("sock"),
		"/run/netns/web", web.Path(), "/etc/netns/web/hosts", hosts, "/sys/fs/cgroup/unified/cron", cron.Path())
	for _, name := range []string{"connectd.yaml", "catalog.yaml"} {
		b, err := os.ReadFile("../../docs/examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		n.write(name, paths.Replace(string(b)))
	}
	if out, code := n.cli("check"); code != 0 || !strings.Contains(out, "ok") {
		t.Fatalf("check: exit %d\n%s", code, out)
	}
	n.start()
	for _, address := range []string{"10.66.0.3:8080", "10.66.0.4:8080"} {
		n.inState("prod/orders", netip.MustParseAddrPort(address), "active")
	}
	got := map[string]int{}
	for range 40 {
		out, err := web.Command(t.Context(), "curl", "-sS", "--max-time", "5", "http://orders/").CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %s\n%s", err, out)
		}
		got[string(out)]++
	}
	if got["az1"] < 8 || got["az1"] > 12 || got["az1"]+got["az2"] != 40 {
		t.Errorf("orders, weights 1 to 3: %v", got)
	}
	if got := spread(web, "tcp", at(n.vip(web, resolver.Host, "cache"), 6379), 2); got["cache"] != 2 {
		t.Errorf("cache: %v", got)
	}
	vip := n.vip(web, resolver.Host, "dns")
	if got := spread(web, "udp", at(vip, 5353), 2); got["udp"] != 2 {
		t.Errorf("dns, connected: %v", got)
	}
	a, err := testutil.AskPacket(web.ListenPacket("udp", "0.0.0.0:0"), netip.AddrPortFrom(vip, 5353))
	if err != nil || a.Name != "udp" || a.Remote != netip.AddrPortFrom(vip, 5353) || a.Peer.Addr() != web.Addr4() {
		t.Errorf("dns, unconnected: %+v, %v", a, err)
	}
	names, err := runClient[[]string](n.host, cron, "resolve", "cache")
	if err != nil || len(names) != 1 {
		t.Fatalf("cron: cache is %v, %v", names, err)
	}
	asked, err := runClient[map[string]int](n.host, cron, "ask", "tcp", net.JoinHostPort(names[0], "6379"), "2")
	if err != nil || asked["cache"] != 2 {
		t.Errorf("cron: %v, %v", asked, err)
	}
	n.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(b), "orders.prod") {
			return fmt.Errorf("hosts file: %q %v", b, err)
		}
		return nil
	})
	for _, command := range []string{"status", "services", "endpoints", "resolve orders", "drain orders 10.66.0.3:8080", "undrain orders 10.66.0.3:8080", "version", "doctor"} {
		if out, code := n.cli(strings.Fields(command)...); code != 0 {
			t.Errorf("%s: exit %d\n%s", command, code, out)
		}
	}
}

// serveHTTP answers /healthz with 200 and everything with the name.
func serveHTTP(tb testing.TB, h *testutil.Host, name, address string) {
	tb.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })}
	ln := h.Listen("tcp", address)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(ln) }()
	tb.Cleanup(func() { server.Close(); <-done })
}
