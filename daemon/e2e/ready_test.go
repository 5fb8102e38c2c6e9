package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

const readyURL = "http://127.254.255.254/ready"

// healthChecks are the documented commands of container health checks. They
// fail only where somebody says 503: a task must not suffer from an absent
// connectd.
var healthChecks = map[string][]string{
	"curl": {"sh", "-c", `test "$(curl -s -m 3 -o /dev/null -w '%{http_code}' http://127.254.255.254/ready)" != 503`},
	"wget": {"sh", "-c", `! wget -O /dev/null http://127.254.255.254/ready 2>&1 | grep -q ' 503 '`},
	"busybox": {"busybox", "sh", "-c",
		`! busybox wget -O /dev/null http://127.254.255.254/ready 2>&1 | busybox grep -q ' 503 '`},
	"bash": {"bash", "-c", `exec 3<>/dev/tcp/127.254.255.254/80 || exit 0; printf 'GET /ready HTTP/1.0\r\n\r\n' >&3
		read -r -t 3 _ code _ <&3; test "$code" != 503`},
}

// healthy runs the health checks in a host.
func healthy(t *testing.T, h *testutil.Host, why string, want bool) {
	t.Helper()
	for name, args := range healthChecks {
		need(t, name)
		if out, err := h.Command(t.Context(), args[0], args[1:]...).CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: the health check with %s: %v, %s", why, name, err, out)
		}
	}
}

// TestTaskReadiness: a task asks connectd whether it is ready, by its network
// namespace or its cgroup; nobody else can, and without a daemon the question
// is refused at once.
func TestTaskReadiness(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	s := newShop(t, "a")
	s.web.ServeName("itself", "[::]:80") // must never answer for connectd
	stranger := s.w.Host("stranger")
	group := testutil.NewCgroup(t)
	conf := s.host.ResolvConf("nameserver " + s.dns.Addr4().String() + "\n")
	s.clients = append(s.clients, fmt.Sprintf("{name: ingroup, cgroup: %s, namespaces: [other], resolvConf: %s}", group.Path(), conf))
	s.begin(service("orders", "", "a"))
	s.vip(s.web, s.dns.Host, "orders")

	ask := func(why string) {
		t.Helper()
		for who, got := range map[string]string{
			"web":     curlIn(s.web, nil, "-w", "%{http_code}", readyURL),
			"ingroup": curlIn(s.host, group, "-w", "%{http_code}", readyURL),
		} {
			if got != "ready\n200" {
				t.Errorf("%s: %s is told %q", why, who, got)
			}
		}
	}
	refuse := func(why string) {
		t.Helper()
		for who, got := range map[string]string{
			"web":     curlIn(s.web, nil, "--max-time", "1", readyURL),
			"ingroup": curlIn(s.host, group, "--max-time", "1", readyURL),
		} {
			if !strings.Contains(got, "exit status 7") {
				t.Errorf("%s: %s gets %q, want no connection at once", why, who, got)
			}
		}
		healthy(t, s.web, why, true)
	}
	ask("at first")
	healthy(t, s.web, "ready", true)
	if got := curlIn(s.web, nil, "-I", "-w", "%{http_code}", readyURL); !strings.HasSuffix(got, "200") {
		t.Errorf("HEAD: %q", got)
	}
	if got := curlIn(s.web, nil, "-o", "/dev/null", "-w", "%{http_code}", "http://127.254.255.254/"); got != "404" {
		t.Errorf("another path: %q", got)
	}
	if got := curlIn(stranger, nil, readyURL); !strings.Contains(got, "exit status 7") {
		t.Errorf("a stranger gets %q", got)
	}
	if got := curlIn(s.host, nil, readyURL); !strings.Contains(got, "exit status 7") {
		t.Errorf("a stranger beside a client gets %q", got)
	}

	s.daemon.signal(syscall.SIGSTOP)
	s.eventually(5*time.Second, func() error {
		if got := curlIn(s.web, nil, "--max-time", "1", readyURL); !strings.Contains(got, "exit status 7") {
			return fmt.Errorf("a hung daemon: %q", got)
		}
		return nil
	})
	refuse("hung")
	s.daemon.signal(syscall.SIGCONT)
	s.eventually(5*time.Second, func() error {
		if got := curlIn(s.web, nil, readyURL); got != "ready\n" {
			return fmt.Errorf("after it: %q", got)
		}
		return nil
	})
	s.daemon.kill()
	refuse("killed")
	s.start()
	ask("after a crash")
	s.daemon.stop()
	refuse("stopped")
	s.start()
	ask("after a stop")
}

// TestHealthChecksFail: the documented commands see a 503.
func TestHealthChecksFail(t *testing.T) {
	t.Parallel()
	h := newNode(t).w.Host("unready")
	l := h.Listen("tcp4", "127.254.255.254:80")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })}
	h.OnClose(func() { server.Close() })
	go server.Serve(l)
	healthy(t, h, "not ready", false)
}
