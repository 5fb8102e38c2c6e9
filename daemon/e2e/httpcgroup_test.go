package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// curlIn is what curl says, errors too, in a cgroup of a host.
func curlIn(h *testutil.Host, g *testutil.Cgroup, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := h.Command(ctx, "curl", append([]string{"-sS", "--max-time", "10"}, args...)...)
	if g != nil {
		cmd.In(g)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s (%s)", out, err)
	}
	return string(out)
}

// TestHTTPCgroupClients: clients that share the node's network namespace and
// are told apart by their cgroup, each with its own scope; and their neighbours
// there, which are no clients.
func TestHTTPCgroupClients(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	s, webs := newHTTPShop(t, "a", "b")
	prod, tools := testutil.NewCgroup(t), testutil.NewCgroup(t)
	conf := s.host.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	for name, g := range map[string]*testutil.Cgroup{"prod": prod, "tools": tools} {
		s.clients = append(s.clients, fmt.Sprintf("{name: c%[1]s, cgroup: %[2]s, namespaces: [%[1]s], resolvConf: %[3]s}", name, g.Path(), conf))
	}
	s.write("catalog-tools.yaml", fmt.Sprintf(`namespace: tools
services:
  - discoveryName: build
    clientAliases: [{dnsName: build, port: 80}]
    appProtocol: http
    endpoints: [{address: %s, port: 8080}]
`, s.servers["b"].Addr4()))
	s.begin(service("orders", "appProtocol: http", "a"))
	for name, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintln(w, name, host, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Request-Id") != "")
		})
	}
	own := s.host.Addr4().String()
	orders := s.at80("orders")
	for _, c := range []struct {
		g           *testutil.Cgroup
		url, server string
	}{{prod, "http://orders.prod/", "a"}, {tools, "http://build.tools/", "b"}} {
		want := fmt.Sprintf("%s %s %s true\n", c.server, own, own)
		if got := curlIn(s.host, c.g, c.url, c.url); got != want+want {
			t.Errorf("%s: %q, want %q twice", c.url, got, want)
		}
	}
	if got := curlIn(s.host, prod.Child("inner"), "http://"+orders+"/"); !strings.HasPrefix(got, "a ") {
		t.Errorf("in a child cgroup: %q", got)
	}

	before := webs["a"].requests.Load()
	if got := curlIn(s.host, tools, "http://"+orders+"/"); !strings.Contains(got, "exit status 7") {
		t.Errorf("out of scope: %q, want no connection", got)
	}
	if got := curlIn(s.host, nil, "http://"+orders+"/"); !strings.Contains(got, "exit status 7") {
		t.Errorf("outside of the cgroups: %q, want no connection", got)
	}
	for _, l := range listeners(t, s.daemon.cmd.Process.Pid) {
		if got := knockAt(t, s.host, l); got != "" {
			t.Errorf("the listener %s answers somebody who came by itself: %q", l, got)
		}
	}
	if n := webs["a"].requests.Load() - before; n > 0 {
		t.Errorf("%d of these requests came to the server", n)
	}
}

// listeners are the addresses in 127.255.255.254 that a process's network
// namespace has listeners on.
func listeners(t *testing.T, pid int) (out []string) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		port, found := strings.CutPrefix(f[1], "FEFFFF7F:")
		if !found || f[3] != "0A" {
			continue
		}
		var n int
		fmt.Sscanf(port, "%X", &n)
		out = append(out, fmt.Sprint("127.255.255.254:", n))
	}
	if len(out) == 0 {
		t.Error("no listener found: this shows nothing")
	}
	return out
}

// knockAt sends a request and returns what comes back.
func knockAt(t *testing.T, h *testutil.Host, address string) string {
	t.Helper()
	conn, err := h.Dial(t.Context(), "tcp", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}
