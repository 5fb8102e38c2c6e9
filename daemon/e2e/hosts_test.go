package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestHostsFile: with connectd dead and its resolver dead too, the names of a
// client with a hosts file still resolve, and lead where they led.
func TestHostsFile(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.clients = nil
	path := s.web.EtcFile("hosts", "127.0.0.1 localhost\n10.9.9.9 own.example\n")
	s.join(s.web, "prod", "hostsFile: "+path)
	s.begin(service("orders", "", "a"))
	vip := s.vip(s.web, s.dns.Host, "orders").String()
	s.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), vip) {
			return fmt.Errorf("no %s in %q (%v)", vip, b, err)
		}
		return nil
	})
	glibc := resolver{name: "glibc", args: func(n string) []string { return []string{"getent", "ahostsv4", n} }}
	for _, how := range []string{"killed", "stopped"} {
		if how == "killed" {
			s.daemon.kill()
		} else {
			s.daemon.stop()
		}
		for name, want := range map[string]string{"orders": vip, "own.example": "10.9.9.9", "outside.example": upstreamAnswer.String()} {
			if got := strings.Join(glibc.run(s.web, s.dns.Addr4(), name), " "); got != want {
				t.Errorf("%s: %s resolves to %q, want %s", how, name, got, want)
			}
		}
		if got := spread(s.web, "tcp", vip+":80", 3); got["a"] != 3 {
			t.Errorf("%s: orders leads to %v", how, got)
		}
		s.start()
	}
	s.daemon.stop()
	if out, code := s.cli("unload"); code != 0 {
		t.Fatalf("unload: exit %d\n%s", code, out)
	}
	if got := spread(s.web, "tcp", vip+":80", 1); got["a"] != 0 || len(got) != 1 {
		t.Errorf("after unload the VIP leads to %v", got)
	}
	if b, _ := os.ReadFile(path); string(b) != "127.0.0.1 localhost\n10.9.9.9 own.example\n" {
		t.Errorf("after unload the hosts file is %q", b)
	}
}

// gapEnv sets how long TestHostsFileUnderLoad goes on without a daemon.
const gapEnv = "CONNECTD_E2E_GAP"

// TestHostsFileUnderLoad: a client that resolves before each connect, as glibc
// does, notices nothing of a gap with neither daemon nor resolver, nor of
// services that come and go around it.
func TestHostsFileUnderLoad(t *testing.T) {
	t.Parallel()
	gap := 5 * time.Second
	if text := os.Getenv(gapEnv); text != "" {
		var err error
		if gap, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newShop(t, "a")
	s.clients = nil
	path := s.web.EtcFile("hosts", "127.0.0.1 localhost\n10.9.9.9 own.example\n")
	s.join(s.web, "prod", "hostsFile: "+path)
	s.begin(service("orders", "", "a"))
	vip := s.vip(s.web, s.dns.Host, "orders").String()
	named := func(name string) error {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "\t"+name+"\n") {
			return fmt.Errorf("no %s in %q (%v)", name, b, err)
		}
		return nil
	}
	s.eventually(5*time.Second, func() error { return named("orders") })
	s.dns.SetLink(false) // from here on a name that is not in the file is lost

	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	glibc := resolver{name: "glibc", args: func(n string) []string { return []string{"getent", "ahosts", n} }}
	for range 2 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if got := strings.Join(glibc.run(s.web, s.dns.Addr4(), "orders"), " "); got != vip {
					l.fail("resolve", fmt.Errorf("orders is %q, want %s", got, vip))
				} else if ans, err := s.web.Ask(context.Background(), "tcp", got+":80"); err != nil || ans.Name != "a" {
					l.fail("connect", fmt.Errorf("%q answers (%v)", ans.Name, err))
				}
				l.opened.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		want := l.opened.Load() + 20
		s.eventually(20*time.Second, func() error {
			if n := l.opened.Load(); n < want {
				return fmt.Errorf("%d of %d connections", n, want)
			}
			return nil
		})
	}
	for i := range 20 {
		s.catalog(service("orders", "", "a") + service(fmt.Sprint("other-", i), "", "a"))
		s.eventually(5*time.Second, func() error { return named(fmt.Sprint("other-", i)) })
	}
	more()
	s.daemon.kill()
	before := l.opened.Load()
	pause(ctx, gap)
	t.Logf("%d connections within %s without a daemon", l.opened.Load()-before, gap)
	more()
	s.start()
	more()
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d of %d failed:\n%s", len(errs), l.opened.Load(), firstOf(errs))
	}
	if got := glibc.run(s.web, s.dns.Addr4(), "other-0"); got != nil {
		t.Errorf("a name that is no service's any more resolves to %s", got)
	}

	// A client that leaves the config while no daemon runs is found all the same.
	s.daemon.kill()
	s.clients = nil
	s.another("other", "prod")
	s.configure()
	s.start()
	s.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(path); string(b) != "127.0.0.1 localhost\n10.9.9.9 own.example\n" {
			return fmt.Errorf("hosts file %q (%v)", b, err)
		}
		return nil
	})
}

// TestUnloadFindsHostsFiles: unload takes the names out of files that the
// config does not list any more, after a crash too.
func TestUnloadFindsHostsFiles(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.clients = nil
	path := s.web.EtcFile("hosts", "127.0.0.1 localhost\n")
	s.join(s.web, "prod", "hostsFile: "+path)
	s.begin(service("orders", "", "a"))
	s.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "\torders\n") {
			return fmt.Errorf("hosts file %q (%v)", b, err)
		}
		return nil
	})
	s.daemon.kill()
	s.clients = nil
	s.another("other", "prod")
	s.configure()
	if out, code := s.cli("unload"); code != 0 {
		t.Fatalf("unload: exit %d\n%s", code, out)
	}
	if b, err := os.ReadFile(path); string(b) != "127.0.0.1 localhost\n" {
		t.Errorf("after unload the hosts file is %q (%v)", b, err)
	}
}

// TestNewServiceReachesRunningProcess: nothing of the client is restarted.
func TestNewServiceReachesRunningProcess(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	s.at80("orders")
	program := s.web.Command(t.Context(), "sh", "-c",
		`until getent ahostsv4 cache; do :; done | head -1 | cut -d' ' -f1`)
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	s.catalog(service("orders", "", "a") + service("cache", "", "a"))
	var vip string
	if _, err := fmt.Fscan(out, &vip); err != nil {
		t.Fatal(err)
	}
	program.Wait()
	if got := spread(s.web, "tcp", vip+":80", 1); got["a"] != 1 {
		t.Errorf("cache, %s, leads to %v", vip, got)
	}
	// And away again: the name goes, other services keep theirs.
	s.catalog(service("orders", "", "a"))
	s.eventually(5*time.Second, func() error {
		if a, err := lookup(s.web, s.dns.Host, "cache"); err == nil {
			return fmt.Errorf("cache still resolves to %s", a)
		}
		return nil
	})
	if got := spread(s.web, "tcp", vip+":80", 1); got["a"] != 0 {
		t.Errorf("a removed service leads to %v", got)
	}
}
