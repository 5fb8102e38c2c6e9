package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// unit is the file that a node's systemd starts the daemon by.
const unit = "../../scripts/connectd.service"

// capabilities are those that the unit leaves the daemon, as setpriv names them.
func capabilities(t *testing.T) (caps []string) {
	t.Helper()
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if list, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			for _, c := range strings.Fields(list) {
				caps = append(caps, strings.ToLower(strings.TrimPrefix(c, "CAP_")))
			}
		}
	}
	if len(caps) == 0 {
		t.Fatal("the unit names no capabilities")
	}
	return caps
}

// confined starts a program with these capabilities and no more, as the unit
// does.
func confined(caps []string) []string {
	return []string{"setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all",
		"--bounding-set=-all,+" + strings.Join(caps, ",+")}
}

// TestCapabilities: what the unit leaves the daemon is enough for all that it
// does, and nothing of it can be left out.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	need(t, "setpriv")
	need(t, "curl")
	caps := capabilities(t)
	s := newConfinedShop(t)

	s.wrapper = confined(caps)
	s.start()
	orders, cache := s.at80("orders"), s.at80("cache")
	if got := spread(s.web, "tcp", cache, 4); got["b"]+got["c"] != 4 {
		t.Errorf("over TCP cache leads to %v", got)
	}
	if got := curlIn(s.web, nil, "http://"+orders+"/"); !strings.HasPrefix(got, "a") {
		t.Errorf("over HTTP orders leads to %q", got)
	}
	hosts := s.path("docker/hosts")
	s.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(b), "orders") {
			return fmt.Errorf("no orders in the hosts file: %q (%v)", b, err)
		}
		return nil
	})
	conn := holdAt(t, s.web, cache, "b")
	s.catalog(service("orders", "appProtocol: http\nhealthCheck: {protocol: tcp, from: caller, intervalSeconds: 0.1, timeoutSeconds: 0.1}", "a") +
		service("cache", "drain: {deadlineSeconds: 0.2}", "b, draining: true", "c"))
	if err := conn.ended(20 * time.Second); err != nil {
		t.Errorf("a drain: %s", err)
	}
	s.daemon.kill()
	s.start() // adopts what is pinned
	if got := curlIn(s.web, nil, "http://"+orders+"/"); !strings.HasPrefix(got, "a") {
		t.Errorf("after a restart orders leads to %q", got)
	}
	s.daemon.stop()
	if s.daemon.logged("level=ERROR") {
		t.Errorf("the daemon has logged errors:\n%s", s.daemon.output())
	}

	for i, c := range caps {
		s.wrapper = confined(append(append([]string{}, caps[:i]...), caps[i+1:]...))
		p := s.spawn()
		s.eventually(30*time.Second, func() error {
			select {
			case <-p.done:
				return nil // it did not start
			default:
			}
			st, err := s.control().Status(context.Background())
			if err == nil && len(st.NotReady) == 0 && st.PID == p.cmd.Process.Pid {
				for _, task := range st.Tasks {
					if task.Error != "" {
						return nil // or not with this task
					}
				}
				t.Errorf("%s can be left out", c)
				return nil
			}
			return fmt.Errorf("not decided: %v", err)
		})
		p.kill()
	}
}

// newConfinedShop has a client that is a process with all capabilities, and
// what else of a node takes some.
func newConfinedShop(t *testing.T) *shop {
	s, _ := newHTTPShop(t, "a")
	for _, name := range []string{"b", "c"} {
		h := s.w.Host(name)
		h.ServeName(name, at(h.Addr4(), 8080))
		s.servers[name] = h
	}
	s.clients = nil
	sleeper := s.web.Command(context.Background(), "sleep", "600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleeper.Process.Kill(); sleeper.Wait() })
	if err := os.MkdirAll(s.path("docker"), 0o710); err != nil { // as Docker's folders of containers
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("docker/hosts"), []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := s.web.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	s.clients = append(s.clients, fmt.Sprintf("{name: web, pid: %d, namespaces: [prod], hostsFile: %s, resolvConf: %s}",
		sleeper.Process.Pid, s.path("docker/hosts"), conf))
	g := testutil.NewCgroup(t)
	s.clients = append(s.clients, fmt.Sprintf("{name: cron, cgroup: %s, namespaces: [prod], resolvConf: %s}", g.Path(), conf))
	s.configure()
	s.catalog(service("orders", "appProtocol: http", "a") + service("cache", "", "b", "c"))
	return s
}
