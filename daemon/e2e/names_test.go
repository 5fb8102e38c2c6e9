package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// muslProgram prints what musl's own resolver says of a name.
const muslProgram = `#include <stdio.h>
#include <netdb.h>
#include <arpa/inet.h>
int main(int n, char **arg) {
	struct addrinfo hint = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *a;
	char text[64];
	int e = getaddrinfo(arg[1], 0, &hint, &a);
	if (e) { fprintf(stderr, "%s\n", gai_strerror(e)); return 1; }
	puts(inet_ntop(AF_INET, &((struct sockaddr_in *)a->ai_addr)->sin_addr, text, sizeof text));
	return 0;
}`

// resolver is a program that resolves a name; its output is searched for
// addresses.
type resolver struct {
	name string
	args func(name string) []string
	env  string
}

func resolvers(t *testing.T, server netip.Addr) []resolver {
	list := []resolver{
		{name: "glibc", args: func(n string) []string { return []string{"getent", "ahostsv4", n} }},
		{name: "glibc both families", args: func(n string) []string { return []string{"getent", "ahosts", n} }},
		{name: "go", env: clientEnv + "=1", args: func(n string) []string { return []string{os.Args[0], "resolve", n} }},
	}
	add := func(program, name string, args func(string) []string) {
		if _, err := exec.LookPath(program); err == nil {
			list = append(list, resolver{name: name, args: args})
		} else if os.Getenv("CI") == "true" {
			t.Errorf("needs %s", program)
		}
	}
	add("busybox", "busybox", func(n string) []string { return []string{"busybox", "nslookup", n} })
	add("dig", "dig", func(n string) []string { return []string{"dig", "+short", "+search", "+tries=1", n} })
	add("dig", "dig tcp", func(n string) []string { return []string{"dig", "+short", "+search", "+tcp", "+tries=1", n} })
	add("dig", "dig edns", func(n string) []string {
		return []string{"dig", "+short", "+search", "+bufsize=1232", "+dnssec", "+cookie", "+subnet=192.0.2.0/24", "+tries=1", n}
	})
	if _, err := exec.LookPath("musl-gcc"); err == nil || os.Getenv("CI") == "true" { // where it must be there
		source, program := filepath.Join(t.TempDir(), "r.c"), filepath.Join(t.TempDir(), "r")
		if err := os.WriteFile(source, []byte(muslProgram), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("musl-gcc", "-static", "-o", program, source).CombinedOutput(); err != nil {
			t.Fatalf("musl-gcc: %s\n%s", err, out)
		}
		list = append(list, resolver{name: "musl", args: func(n string) []string { return []string{program, n} }})
	}
	return list
}

var ipv4 = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)

// run resolves on a host and returns the addresses but the server's own.
func (r resolver) run(h *testutil.Host, server netip.Addr, name string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	args := r.args(name)
	cmd := h.Command(ctx, args[0], args[1:]...)
	if r.env != "" {
		cmd.Env = append(os.Environ(), r.env)
	}
	out, err := cmd.Output()
	if err != nil && r.name != "busybox" { // busybox: 1 if any family has no address
		return nil
	}
	seen := map[string]bool{}
	var got []string
	for _, a := range ipv4.FindAllString(string(out), -1) {
		if a != server.String() && !seen[a] {
			seen[a] = true
			got = append(got, a)
		}
	}
	return got
}

// namesNode is the world of the names tests: web may use prod and its resolver has names of
// its own, orders among them.
func namesNode(t *testing.T) (*node, *testutil.Host, *upstream) {
	n := newNode(t)
	web, a := n.w.Host("web"), n.w.Host("a")
	dns := n.upstream("outside.example", "odd.Example", "orders", "orders.svc.example", "secret")
	a.ServeName("a", at(a.Addr4(), 8080))
	web.ResolvConf("nameserver " + dns.Addr4().String() + "\nsearch corp.example svc.example\noptions ndots:2 timeout:1\n")
	n.client(web, "prod")
	n.configure()
	n.write("catalog.yaml", fmt.Sprintf(`namespace: prod
services:
  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    endpoints: [{address: %[1]s, port: 8080}]
  - discoveryName: long
    clientAliases: [{dnsName: orders.svc.example, port: 80}]
    endpoints: [{address: %[1]s, port: 8080}]
`, a.Addr4()))
	n.write("catalog-tools.yaml", fmt.Sprintf(`namespace: tools
services:
  - discoveryName: secret
    clientAliases: [{dnsName: secret, port: 80}]
    endpoints: [{address: %s, port: 8080}]
`, a.Addr4()))
	return n, web, dns
}

// TestNames asks with every resolver there is, with connectd, without, and
// with it again.
func TestNames(t *testing.T) {
	t.Parallel()
	n, web, dns := namesNode(t)
	list := resolvers(t, dns.Addr4())
	n.start()
	vip := n.vip(web, dns.Host, "orders").String()
	fqdn := n.vip(web, dns.Host, "orders.prod").String()
	outside := upstreamAnswer.String()
	check := func(when string, want map[string]string) {
		for _, r := range list {
			for name, address := range want {
				if r.name == "busybox" && !strings.Contains(name, ".") {
					continue // shows what every search domain has, not the first
				}
				if got := strings.Join(r.run(web, dns.Addr4(), name), " "); got != address {
					t.Errorf("%s: %s resolves %s to %q, want %q", when, r.name, name, got, address)
				}
			}
		}
	}
	check("running", map[string]string{
		"orders": vip, "ORDERS": vip, "orders.": vip, "orders.prod": fqdn, "outside.example": outside, "nowhere.example.": "", "secret": outside,
	})
	n.daemon.stop()
	atOnce(t, web, dns)
	check("stopped", map[string]string{"orders.": outside, "orders.prod": "", "outside.example": outside})
	n.start()
	check("again", map[string]string{"orders.": vip, "orders.prod": fqdn})
	n.daemon.kill()
	atOnce(t, web, dns)
	check("killed", map[string]string{"orders.": outside, "orders.prod": "", "outside.example": outside})
}

// atOnce sends one datagram: with connectd away the resolver itself answers it.
func atOnce(t *testing.T, h *testutil.Host, dns *upstream) {
	t.Helper()
	got, err := askRaw(h, "udp", at(dns.Addr4(), 53), rawQuery("orders", 1))
	if _, answered := dns.last(); err != nil || !bytes.Equal(got, answered) {
		t.Errorf("the first query after connectd went is answered %x, %v", got, err)
	}
}

// TestHungDaemon: one that is there and does nothing is as good as away.
func TestHungDaemon(t *testing.T) {
	t.Parallel()
	n, web, dns := namesNode(t)
	n.start()
	vip := n.vip(web, dns.Host, "orders")
	n.daemon.signal(syscall.SIGSTOP)
	defer n.daemon.signal(syscall.SIGCONT)
	n.eventually(10*time.Second, func() error {
		if a, err := lookup(web, dns.Host, "orders"); err != nil || a != upstreamAnswer {
			return fmt.Errorf("orders is %s, %v", a, err)
		}
		return nil
	})
	if got := spread(web, "tcp", at(vip, 80), 3); got["a"] != 3 {
		t.Errorf("connections while it hangs: %v", got)
	}
	n.daemon.signal(syscall.SIGCONT)
	if got := n.vip(web, dns.Host, "orders"); got != vip {
		t.Errorf("orders is %s, was %s", got, vip)
	}
}

// TestForwardedUnchanged compares bytes: of what connectd is not asked about,
// it changes none, in either direction, by UDP and TCP.
func TestForwardedUnchanged(t *testing.T) {
	t.Parallel()
	n, web, dns := namesNode(t)
	n.start()
	n.vip(web, dns.Host, "orders")
	query := rawQuery("odd.Example", 1)
	query[3] |= 0x70 // Z, AD and CD as they come
	query = append(query, 0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 6, 0xfd, 0xe9, 0, 2, 'h', 'i')
	query[11] = 1 // an OPT record with a private option
	for _, network := range []string{"udp", "tcp"} {
		got, err := askRaw(web, network, at(dns.Addr4(), 53), query)
		if err != nil {
			t.Errorf("%s: %s", network, err)
			continue
		}
		asked, answered := dns.last()
		if !bytes.Equal(asked, query) {
			t.Errorf("%s: the upstream was asked\n%x, want\n%x", network, asked, query)
		}
		if !bytes.Equal(got, answered) {
			t.Errorf("%s: the client got\n%x, want\n%x", network, got, answered)
		}
	}
}

// rawQuery builds a question byte by byte: a library would tidy it up.
func rawQuery(name string, qtype byte) []byte {
	msg := []byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		msg = append(append(msg, byte(len(label))), label...)
	}
	return append(msg, 0, 0, qtype, 0, 1)
}

func askRaw(h *testutil.Host, network, server string, query []byte) ([]byte, error) {
	conn, err := h.Dial(context.Background(), network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, tcp := conn.(*net.TCPConn); tcp {
		query = append([]byte{byte(len(query) >> 8), byte(len(query))}, query...)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	read, err := conn.Read(buf)
	if _, tcp := conn.(*net.TCPConn); tcp && read >= 2 {
		return buf[2:read], err
	}
	return buf[:read], err
}

// TestAnswerForms looks at what dig prints: flags and sections.
func TestAnswerForms(t *testing.T) {
	t.Parallel()
	need(t, "dig")
	n, web, dns := namesNode(t)
	n.start()
	vip := n.vip(web, dns.Host, "orders").String()
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"orders.prod A", []string{"status: NOERROR", " qr aa rd ra;", "ANSWER: 1"}},
		{"orders. AAAA", []string{"status: NOERROR", "ANSWER: 0"}},
		{"orders. MX", []string{"status: NOERROR", "ANSWER: 0"}},
		{"orders. ANY +notcp", []string{"status: NOERROR", "ANSWER: 1", vip}},
		{"orders. A +tcp", []string{"status: NOERROR", "ANSWER: 1", vip}},
		{"orders. A +noedns", []string{"status: NOERROR", "ANSWER: 1", "ADDITIONAL: 0", vip}},
		{"orders. A +bufsize=512 +dnssec", []string{"EDNS: version: 0", vip}},
		{"orders. A +edns=1 +noednsnegotiation", []string{"status: BADVERS", "EDNS: version: 0"}},
		{"OrDeRs. A", []string{"OrDeRs.", vip}}, // the case of the question comes back
		{"orders. A +norecurse", []string{"status: NOERROR", " qr aa ra;", vip}},
		{"nowhere.example. A", []string{"status: NXDOMAIN"}},
		{"secret. A", []string{upstreamAnswer.String()}},
	} {
		args := append([]string{"+tries=1", "+time=3"}, strings.Fields(tc.args)...)
		out, err := web.Command(t.Context(), "dig", args...).CombinedOutput()
		if err != nil {
			t.Errorf("dig %s: %s\n%s", tc.args, err, out)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("dig %s: no %q in\n%s", tc.args, want, out)
			}
		}
	}
}
