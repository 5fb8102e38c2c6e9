package e2e

import (
	"fmt"
	"net/http"
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
