package e2e

import (
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestCounts: the metrics say what was done, to the byte.
func TestCounts(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"), service("idle", "", "a"))
	address := s.at80("orders")
	const times, size = 50, 3000
	var received float64
	payload := make([]byte, size)
	for range times {
		c := hold(t, s.web, address)
		if _, err := c.Write(payload); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, payload); err != nil {
			t.Fatal(err)
		}
		received += float64(len(fmt.Sprintf("a %s\n", c.LocalAddr())) + size)
		c.Close()
	}
	check := func(name string, want float64) {
		s.eventually(15*time.Second, func() error { // live bytes are sampled each 5 s
			if got := s.metric(name, "service", "orders"); got != want {
				return fmt.Errorf("%s is %v, want %v", name, got, want)
			}
			return nil
		})
	}
	check("connectd_endpoint_connections_total", times)
	check("connectd_endpoint_active_connections", 0)
	check("connectd_endpoint_sent_bytes_total", times*size)
	check("connectd_endpoint_received_bytes_total", received)
	check("connectd_connect_duration_seconds_count", times)
	check("connectd_srtt_seconds_count", times)
	check("connectd_endpoint_connect_failures_total", 0)

	live := hold(t, s.web, address)
	if _, err := live.Write(payload); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(live, payload); err != nil {
		t.Fatal(err)
	}
	received += float64(len(fmt.Sprintf("a %s\n", live.LocalAddr())) + size)
	check("connectd_endpoint_connections_total", times+1)
	check("connectd_endpoint_active_connections", 1)
	check("connectd_endpoint_sent_bytes_total", (times+1)*size)
	check("connectd_endpoint_received_bytes_total", received)
	live.Close()
	check("connectd_endpoint_active_connections", 0)
	check("connectd_endpoint_sent_bytes_total", (times+1)*size)

	if got := s.scrape("connectd_endpoint_connections_total"); len(got) != 1 {
		t.Errorf("series of endpoints not in use: %v", got)
	}
	if n := s.metric("connectd_hook_outcomes_total", "reason", "translated"); n != times+1 {
		t.Errorf("%v translated, want %d", n, times+1)
	}
	answered := s.metric("connectd_dns_queries_total", "outcome", "answered")
	if _, err := lookup(s.web, s.dns.Host, "orders"); err != nil {
		t.Fatal(err)
	}
	if n := s.metric("connectd_dns_queries_total", "outcome", "answered"); n != answered+1 {
		t.Errorf("%v answers counted after one more than %v", n, answered)
	}

	// What the kernel counts goes on over a restart.
	s.daemon.kill()
	s.start()
	check("connectd_endpoint_connections_total", times+1)
	check("connectd_endpoint_received_bytes_total", received)
}

// TestFailureReasons are those of the kernel.
func TestFailureReasons(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin("  - discoveryName: refused\n    clientAliases: [{dnsName: refused, port: 80}]\n    endpoints: [{address: $a, port: 1}]\n",
		"  - discoveryName: empty\n    clientAliases: [{dnsName: empty, port: 80}]\n")
	if got := spread(s.web, "tcp", s.at80("refused"), 3); len(got) != 1 {
		t.Errorf("%v", got)
	}
	spread(s.web, "tcp", s.at80("empty"), 2)
	s.eventually(5*time.Second, func() error {
		if n := s.metric("connectd_connect_failures_total", "service", "refused", "reason", "refused"); n != 3 {
			return fmt.Errorf("%v refused, want 3", n)
		}
		if n := s.metric("connectd_hook_outcomes_total", "reason", "no_endpoint"); n != 2 {
			return fmt.Errorf("%v times no endpoint, want 2", n)
		}
		return nil
	})
}

// TestReadiness: /livez and /readyz over a life.
func TestReadiness(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.configure()
	s.catalog(service("orders", "", "a"))
	p := s.spawn()
	sawDown := false
	s.eventually(20*time.Second, func() error {
		code, body, err := s.get("/readyz")
		if err != nil || code != http.StatusOK {
			sawDown = true
			return fmt.Errorf("readyz: %d %s %v", code, body, err)
		}
		return nil
	})
	if !sawDown {
		t.Error("ready before it can have been")
	}
	// Ready means ready: the very first question is answered.
	if a, err := lookup(s.web, s.dns.Host, "orders"); err != nil || !vips.Contains(a) {
		t.Errorf("ready, but orders is %s, %v", a, err)
	}
	if code, body, err := s.get("/livez"); err != nil || code != http.StatusOK {
		t.Errorf("livez: %d %s %v", code, body, err)
	}
	if n := s.metric("connectd_build_info"); n != 1 {
		t.Errorf("build info %v", n)
	}
	// A reload with an error is no reason to be restarted or left out.
	s.write("connectd.yaml", "nonsense")
	p.signal(syscall.SIGHUP)
	s.eventually(5*time.Second, func() error {
		if s.status().Config.Error == "" {
			return fmt.Errorf("no error yet")
		}
		return nil
	})
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body, err := s.get(path); err != nil || code != http.StatusOK {
			t.Errorf("%s after a bad reload: %d %s %v", path, code, body, err)
		}
	}
	p.stop()
	if _, _, err := s.get("/livez"); err == nil {
		t.Error("livez answers after the end")
	}
}
