package e2e

import (
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
