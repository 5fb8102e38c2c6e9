package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Mode direct: requests are counted though nobody carries them, and 5xx eject.
func TestHTTPDirect(t *testing.T) {
	s, webs := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http\nmode: direct\noutlier: {consecutiveFailures: 3, baseEjectionSeconds: 60}", "a", "b"))
	url := "http://" + s.at80("orders") + "/"
	seen := map[string]bool{}
	for range 50 {
		c := httpClient(t, s.web)
		for range 4 {
			_, body, err := get(c, url)
			if err != nil {
				t.Fatal(err)
			}
			seen[body] = true
		}
		c.CloseIdleConnections()
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("answers came from %v", seen)
	}
	if n := s.metric("connectd_http_requests_total", "code_class", "2xx"); n != 200 {
		t.Errorf("counted %v requests of 200", n)
	}
	webs["a"].answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Request-Id") != "" {
			t.Error("a request in direct mode went through the forwarder")
		}
		w.WriteHeader(500)
	})
	s.eventually(20*time.Second, func() error {
		c := httpClient(t, s.web)
		defer c.CloseIdleConnections()
		get(c, url)
		if e := s.endpoints("prod/orders")[s.endpoint("a")]; len(e.AvoidedBy) == 0 {
			return fmt.Errorf("endpoint is %s, avoided by %v", e.State, e.AvoidedBy)
		}
		return nil
	})
	for range 5 {
		c := httpClient(t, s.web)
		if status, body, err := get(c, url); status != 200 || body != "b" {
			t.Errorf("got %d %q (%v)", status, body, err)
		}
		c.CloseIdleConnections()
	}
}

// statusConfig has nginx answer with the status that the path names, and log it.
const statusConfig = `daemon off;
master_process off;
error_log stderr;
pid %[1]s/%[2]s.pid;
events { worker_connections 256; }
http {
    log_format status $status;
    access_log %[1]s/%[2]s.log status;
    client_body_temp_path %[1]s/body.tmp;
    proxy_temp_path %[1]s/proxy.tmp;
    fastcgi_temp_path %[1]s/fastcgi.tmp;
    uwsgi_temp_path %[1]s/uwsgi.tmp;
    scgi_temp_path %[1]s/scgi.tmp;
    keepalive_requests 100000;
    server {
        listen 8080 %[3]s;
        location /200 { return 200 "hello"; }
        location /204 { return 204; }
        location /302 { return 302 http://s/200; }
        location /404 { return 404; }
        location /503 { return 503; }
    }
}
`

// startNginx runs one on a server until the test ends.
func (s *shop) startNginx(server, options string) {
	s.Helper()
	h := s.w.Host(server)
	s.servers[server] = h
	s.write(server+".conf", fmt.Sprintf(statusConfig, s.dir, server, options))
	ctx, cancel := context.WithCancel(s.Context())
	nginx := h.Command(ctx, "nginx", "-p", s.dir, "-e", "stderr", "-c", s.path(server+".conf"))
	if err := nginx.Start(); err != nil {
		s.Fatal(err)
	}
	done := make(chan struct{})
	go func() { nginx.Wait(); close(done) }()
	s.Cleanup(func() { cancel(); <-done })
	s.eventually(10*time.Second, func() error {
		c, err := h.Dial(ctx, "tcp", at(h.Addr4(), 8080))
		if err == nil {
			c.Close()
		}
		return err
	})
}

// classes counts nginx's log by status class; it is written after the answer.
func (s *shop) classes(server string, requests int) map[string]float64 {
	s.Helper()
	var lines []string
	s.eventually(10*time.Second, func() error {
		b, err := os.ReadFile(s.path(server + ".log"))
		if lines = strings.Fields(string(b)); len(lines) < requests {
			return fmt.Errorf("%d lines of %d (%v)", len(lines), requests, err)
		}
		return nil
	})
	out := make(map[string]float64)
	for _, status := range lines {
		out[status[:1]+"xx"]++
	}
	return out
}

// What the kernel counts is what the server has counted; of many HTTP/2 streams,
// whose segments may overtake one another, within 1 %.
func TestHTTPDirectNginx(t *testing.T) {
	t.Parallel()
	need(t, "nginx")
	need(t, "h2load")
	s := newShop(t)
	s.startNginx("a", "")
	s.startNginx("b", "http2")
	s.begin(service("orders", "appProtocol: http\nmode: direct", "a"), service("stock", "appProtocol: http2\nmode: direct", "b"))
	for _, to := range []struct {
		server, service string
		off             float64
		args            []string
	}{
		{"a", "orders", 0, []string{"--h1", "-c8", "-n2000"}},
		{"b", "stock", 0.01, []string{"-c4", "-m32", "-n4000"}},
	} {
		args := to.args
		for _, status := range []string{"200", "204", "302", "404", "503"} {
			args = append(args, "http://"+s.at80(to.service)+"/"+status)
		}
		output(t, s.web, "h2load", args...)
		var requests int
		fmt.Sscanf(to.args[len(to.args)-1], "-n%d", &requests)
		want, off := s.classes(to.server, requests), 0.0
		got := make(map[string]float64)
		for _, class := range []string{"2xx", "3xx", "4xx", "5xx", "other", "none", "1xx"} {
			got[class] = s.metric("connectd_http_requests_total", "service", to.service, "code_class", class)
			off += math.Abs(got[class] - want[class])
		}
		if most := to.off * float64(requests); off > most {
			t.Errorf("%s: counted %v, nginx %v", to.service, got, want)
		}
		if n := s.metric("connectd_http_connections_left_out_total", "service", to.service); n != 0 {
			t.Errorf("%s: %v connections left out", to.service, n)
		}
	}
}
