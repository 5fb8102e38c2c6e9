package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestScope: who may reach what, in one daemon with clients of all three kinds.
func TestScope(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	g := testutil.NewCgroup(t)
	inner := g.Child("inner")
	tools, stranger, worker := s.another("tools", "tools"), s.w.Host("stranger"), s.w.Host("worker")
	sleeper := worker.Command(context.Background(), "sleep", "1000")
	worker.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { sleeper.Wait(); close(done) }()
	t.Cleanup(func() { sleeper.Process.Kill(); <-done })
	stranger.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	conf := s.host.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	s.clients = append(s.clients,
		fmt.Sprintf("{name: worker, pid: %d, namespaces: [prod]}", sleeper.Process.Pid),
		fmt.Sprintf("{name: cron, cgroup: %s, namespaces: [prod], resolvConf: %s}", g.Path(), conf))
	s.dns.knows("orders") // what strangers get
	s.begin(service("orders", "", "a"))
	orders := s.at80("orders")

	if got := spread(worker, "tcp", orders, 3); got["a"] != 3 {
		t.Errorf("pid client: %v", got)
	}
	if a, err := lookup(worker, s.dns.Host, "orders"); err != nil || !vips.Contains(a) {
		t.Errorf("pid client: orders is %s, %v", a, err)
	}
	for where, cg := range map[string]*testutil.Cgroup{"in the cgroup": g, "in a child of it": inner} {
		got, err := runClient[map[string]int](s.host, cg, "ask", "tcp", orders, "3")
		if err != nil || got["a"] != 3 {
			t.Errorf("%s: %v, %v", where, got, err)
		}
		names, err := runClient[[]string](s.host, cg, "resolve", "orders")
		if err != nil || len(names) != 1 || names[0]+":80" != orders {
			t.Errorf("%s: orders is %v, %v", where, names, err)
		}
	}

	// The other namespace: neither the name nor the VIP.
	if _, err := tools.Dial(t.Context(), "tcp", orders); !errors.Is(err, syscall.EPERM) {
		t.Errorf("out of scope: %v, want EPERM", err)
	}
	if a, err := lookup(tools, s.dns.Host, "orders"); err != nil || a != upstreamAnswer {
		t.Errorf("out of scope: orders is %s, %v", a, err)
	}
	// Strangers: as if connectd had never been there.
	if a, err := lookup(stranger, s.dns.Host, "orders"); err != nil || a != upstreamAnswer {
		t.Errorf("stranger: orders is %s, %v", a, err)
	}
	if _, err := stranger.Dial(t.Context(), "tcp", orders); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("stranger: %v, want ECONNREFUSED", err)
	}
	names, err := runClient[[]string](s.host, nil, "resolve", "orders")
	if err != nil || len(names) != 1 || names[0] != upstreamAnswer.String() {
		t.Errorf("outside of the cgroup: orders is %v, %v", names, err)
	}
	got, err := runClient[map[string]int](s.host, nil, "ask", "tcp", orders, "1")
	if err != nil || got[syscall.ECONNREFUSED.Error()] != 1 {
		t.Errorf("outside of the cgroup: %v, %v", got, err)
	}
	// A port without a service.
	host, _, _ := net.SplitHostPort(orders)
	if _, err := s.web.Dial(t.Context(), "tcp", host+":81"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port without a frontend: %v, want ECONNREFUSED", err)
	}
}

// TestNoEndpoint fails at once.
func TestNoEndpoint(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin("  - discoveryName: empty\n    clientAliases: [{dnsName: empty, port: 80}]\n")
	begun := time.Now()
	_, err := s.web.Dial(t.Context(), "tcp", s.at80("empty"))
	if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("%v, want EHOSTUNREACH", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestApplicationBinds: what an application can bind in a client's namespace
// does not depend on connectd, port 53 least of all.
func TestApplicationBinds(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	s.at80("orders")
	for _, address := range []string{"0.0.0.0:", "[::]:", "127.0.0.1:", "127.255.255.254:", "[::1]:", s.web.Addr4().String() + ":"} {
		for _, port := range []int{53, 80, 853, 9464, 15000, 15001} {
			err := s.web.Do(func() error {
				ln, err := net.Listen("tcp", address+strconv.Itoa(port))
				if err != nil {
					return err
				}
				defer ln.Close()
				conn, err := net.ListenPacket("udp", address+strconv.Itoa(port))
				if err != nil {
					return err
				}
				return conn.Close()
			})
			if err != nil {
				t.Errorf("%s%d: %s", address, port, err)
			}
		}
	}
	// A DNS server of the application's own is reached by its own address, and
	// names still go to connectd.
	s.web.ServeName("own", "0.0.0.0:53")
	for _, network := range []string{"tcp", "udp"} {
		if got := spread(s.web, network, "127.0.0.1:53", 1); got["own"] != 1 {
			t.Errorf("%s: own server: %v", network, got)
		}
	}
	if got := spread(s.web, "tcp", s.at80("orders"), 1); got["a"] != 1 {
		t.Errorf("beside an own server: %v", got)
	}
}
