package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const goodService = `namespace: prod
services:
  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    endpoints: [{address: 10.66.0.3, port: 8080}]
`

// TestBadInput: `check` and a start exit with 1 and name file, line and field,
// and leave nothing behind.
func TestBadInput(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	web := n.w.Host("web")
	g := web.Path()
	config := func(lines string) string {
		return fmt.Sprintf("stateDir: %s\nbpffs: %s\ncontrolSocket: %s\n%scatalog: {files: [catalog.yaml]}\n", n.path("state"), n.bpffs, n.path("sock"), lines)
	}
	client := func(fields string) string { return config("clients:\n  - {" + fields + "}\n") }
	for _, tc := range []struct{ name, config, catalog, want string }{
		{"unknown key", config("vipCidr: 127.254.0.0/16\n"), "", "connectd.yaml:4: vipCidr: unknown key"},
		{"CIDR out of range", config("vipCIDR: 10.0.0.0/16\n"), "", "connectd.yaml:4: vipCIDR:"},
		{"CIDR of Service Connect", config("vipCIDR: 127.255.0.0/16\n"), "", "connectd.yaml:4: vipCIDR:"},
		{"wrong type", config("limits: {maxConnections: many}\n"), "", "connectd.yaml:4: limits.maxConnections:"},
		{"missing netns", client("name: web, netns: /run/netns/nobody, namespaces: [prod]"), "", "connectd.yaml:5: clients[0].netns: /run/netns/nobody: no such file"},
		{"own netns", client("name: web, netns: /proc/self/ns/net, namespaces: [prod]"), "", "connectd.yaml:5: clients[0].netns:"},
		{"missing pid", client("name: web, pid: 4194304, namespaces: [prod]"), "", "connectd.yaml:5: clients[0].pid:"},
		{"missing cgroup", client("name: web, cgroup: /sys/fs/cgroup/nobody, namespaces: [prod]"), "", "connectd.yaml:5: clients[0].cgroup: /sys/fs/cgroup/nobody: no such file"},
		{"a file as cgroup", client("name: web, cgroup: /etc/passwd, namespaces: [prod]"), "", "connectd.yaml:5: clients[0].cgroup:"},
		{"two kinds", client("name: web, netns: " + g + ", pid: 1, namespaces: [prod]"), "", "connectd.yaml:5: clients[0]: must have exactly one"},
		{"same name twice", config("clients:\n  - {name: web, netns: " + g + ", namespaces: [prod]}\n  - {name: web, cgroup: /sys/fs/cgroup, namespaces: [prod]}\n"), "", "connectd.yaml:6: clients[1]: name \"web\" stands here twice"},
		{"same netns twice", config("clients:\n  - {name: web, netns: " + g + ", namespaces: [prod]}\n  - {name: api, netns: " + g + ", namespaces: [prod]}\n"), "", "connectd.yaml:6: clients[1].netns: is the same as that of client \"web\""},
		{"no namespaces", client("name: web, netns: " + g), "", "connectd.yaml:5: clients[0].namespaces: is missing"},
		{"not YAML", "clients: [\n", "", "connectd.yaml:"},
		{"empty", "", "", "connectd.yaml:"},
		{"catalog: unknown key", "", strings.Replace(goodService, "endpoints", "endpoint", 1), "catalog.yaml:5: services[0].endpoint: unknown key"},
		{"catalog: duplicate service", "", goodService + strings.Join(strings.Split(goodService, "\n")[2:], "\n"), "catalog.yaml:6: services[1].discoveryName:"},
		{"catalog: duplicate alias", "", goodService + strings.Replace(strings.Join(strings.Split(goodService, "\n")[2:], "\n"), "discoveryName: orders", "discoveryName: other", 1), "catalog.yaml:6: services[1].clientAliases[0]"},
		{"catalog: port", "", strings.Replace(goodService, "8080", "80800", 1), "catalog.yaml:5: services[0].endpoints[0].port: 80800"},
		{"catalog: address", "", strings.Replace(goodService, "10.66.0.3", "10.66.0.300", 1), "catalog.yaml:5: services[0].endpoints[0].address:"},
		{"catalog: endpoint is a VIP", "", strings.Replace(goodService, "10.66.0.3", "127.254.0.3", 1), "catalog.yaml:5: services[0].endpoints[0].address:"},
		{"catalog: long discoveryName", "", strings.Replace(goodService, "orders", strings.Repeat("o", 65), 1), "catalog.yaml:3: services[0].discoveryName:"},
		{"catalog: long dnsName", "", strings.Replace(goodService, "dnsName: orders", "dnsName: "+strings.Repeat("o.", 64)+"o", 1), "catalog.yaml:4: services[0].clientAliases[0].dnsName:"},
		{"catalog: missing file", "", "-", "catalog.yaml"},
		{"catalog: not YAML", "", "\tx", "catalog.yaml:1:"},
	} {
		if tc.config == "" && tc.name != "empty" {
			tc.config = config("")
		}
		if tc.catalog == "" {
			tc.catalog = goodService
		}
		n.write("connectd.yaml", tc.config)
		n.write("catalog.yaml", tc.catalog)
		if tc.catalog == "-" {
			os.Remove(n.path("catalog.yaml"))
		}
		for _, command := range []string{"check", "run"} {
			out, code := n.cli(command)
			if code != 1 || !strings.Contains(out, tc.want) || strings.Contains(out, "panic") {
				t.Errorf("%s: %s: exit %d, want 1 and %q in\n%s", tc.name, command, code, tc.want, out)
			}
		}
	}
	if _, err := os.Stat(n.path("state")); err == nil {
		t.Error("a start that refused its input made the state directory")
	}
	n.write("connectd.yaml", config(""))
	n.write("catalog.yaml", goodService)
	if out, code := n.cli("check"); code != 0 {
		t.Errorf("good files: exit %d\n%s", code, out)
	}
}

// TestBadReload keeps what was, and says so in the log, the status and the
// metrics, until it is put right.
func TestBadReload(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	address := s.at80("orders")
	shown := func(what string, problem string, metric string, file string) {
		t.Helper()
		s.eventually(10*time.Second, func() error {
			st := s.status()
			for _, p := range st.Problems {
				if p.Name == problem && strings.Contains(p.Message, file) {
					return nil
				}
			}
			return fmt.Errorf("%s: no %s about %s in %+v", what, problem, file, st.Problems)
		})
		if v := s.metric(metric); v != 0 {
			t.Errorf("%s: %s is %v", what, metric, v)
		}
		if !s.daemon.logged("keep what", file) && !s.daemon.logged("not in use", file) {
			t.Errorf("%s: nothing of %s in the log", what, file)
		}
		if got := spread(s.web, "tcp", address, 3); got["a"] != 3 {
			t.Errorf("%s: orders leads to %v", what, got)
		}
		if out, code := s.cli("status"); code != 0 || !strings.Contains(out, file) {
			t.Errorf("%s: status exits %d:\n%s", what, code, out)
		}
	}
	well := func(what, metric string) {
		t.Helper()
		s.eventually(10*time.Second, func() error {
			if st := s.status(); st.Verdict != "ok" {
				return fmt.Errorf("%s put right: %+v", what, st.Problems)
			}
			if v := s.metric(metric); v != 1 {
				return fmt.Errorf("%s put right: %s is %v", what, metric, v)
			}
			return nil
		})
	}
	s.catalog(service("orders", "", "a") + service("orders", "", "a") + service("more", "", "a"))
	shown("catalog", "catalogError", "connectd_catalog_last_reload_successful", "catalog.yaml:7")
	if _, err := lookup(s.web, s.dns.Host, "more"); err == nil {
		t.Error("a service of a file with an error is in use")
	}
	s.catalog(service("orders", "", "a"))
	well("catalog", "connectd_catalog_last_reload_successful")

	s.clients = append(s.clients, "{name: nobody, netns: /run/netns/nobody, namespaces: [prod]}")
	s.configure()
	shown("config", "configError", "connectd_config_last_reload_successful", "connectd.yaml:7")
	s.daemon.signal(syscall.SIGHUP)
	s.clients = s.clients[:1]
	s.configure()
	well("config", "connectd_config_last_reload_successful")

	// A field that needs a restart is not in use, and is said to wait.
	s.extra = "logLevel: debug\n"
	s.configure()
	s.eventually(10*time.Second, func() error {
		if r := s.status().Config.RestartNeeded; len(r) != 1 || r[0] != "logLevel" {
			return fmt.Errorf("restart needed for %v", r)
		}
		return nil
	})
}

// TestMalformedQueries: a burst of broken messages is counted, and nothing
// else comes of it.
func TestMalformedQueries(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	s.at80("orders")
	random := rand.New(rand.NewPCG(3, 4))
	good := rawQuery("orders", 1)
	const times = 4000
	conn := s.web.ListenPacket("udp", "0.0.0.0:0")
	server := s.dns.Addr4()
	for i := range times {
		msg := append([]byte(nil), good...)
		switch i % 4 {
		case 0: // noise
			msg = make([]byte, random.IntN(600))
			for j := range msg {
				msg[j] = byte(random.Uint32())
			}
		case 1: // cut short
			msg = msg[:random.IntN(len(msg))]
		case 2: // bits turned
			for range 1 + random.IntN(8) {
				msg[2+random.IntN(len(msg)-2)] ^= 1 << random.IntN(8)
			}
		case 3: // a label that points to itself
			msg = append(msg[:12], 0xc0, 0x0c, 0, 1, 0, 1)
		}
		conn.WriteTo(msg, udpAddr(server, 53))
		if i%50 == 0 { // an answer shows that the socket's buffer is empty
			s.vip(s.web, s.dns.Host, "orders")
		}
	}
	for i := range 50 { // and by TCP, lengths that lie included
		c, err := s.web.Dial(t.Context(), "tcp", at(server, 53))
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte{byte(i), byte(random.Uint32())})
		c.Write(good[:random.IntN(len(good))])
		c.Close()
	}
	if got := s.vip(s.web, s.dns.Host, "orders"); !vips.Contains(got) {
		t.Errorf("orders is %s", got)
	}
	s.eventually(10*time.Second, func() error {
		bad := s.metric("connectd_dns_queries_total", "outcome", "formerr") + s.metric("connectd_dns_queries_total", "outcome", "dropped")
		if bad < times/4 {
			return fmt.Errorf("%v of %d counted as formerr or dropped", bad, times)
		}
		return nil
	})
	if st := s.status(); st.PID != s.daemon.cmd.Process.Pid || st.Verdict != "ok" {
		t.Errorf("status: %+v", st)
	}
}
