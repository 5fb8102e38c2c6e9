package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestHTTPEjection: one client that gets errors avoids the endpoint alone, a
// second one has it ejected for all, and it comes back.
func TestHTTPEjection(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a", "b")
	api, third := s.another("api", "prod"), s.another("third", "prod")
	s.begin(service("orders", "appProtocol: http\noutlier: {consecutiveFailures: 3, baseEjectionSeconds: 4}", "a", "b"))
	url := "http://" + s.at80("orders") + "/"
	ofWeb, ofAPI, ofThird := httpClient(t, s.web), httpClient(t, api), httpClient(t, third)
	// 500 is nothing that another endpoint would do better: clients see it.
	webs["a"].answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	send := func(c *http.Client, n int) (failed int) {
		t.Helper()
		for range n {
			status, _, err := get(c, url)
			if err != nil {
				t.Fatal(err)
			}
			if status == 500 {
				failed++
			}
		}
		return failed
	}
	if failed := send(ofWeb, 6); failed != 3 {
		t.Errorf("%d of 6 failed before anything was known, want half", failed)
	}
	s.eventually(10*time.Second, func() error {
		e := s.endpoints("prod/orders")[s.endpoint("a")]
		if !slices.Equal(e.AvoidedBy, []string{"web"}) || e.State != "active" {
			return fmt.Errorf("avoided by %v, %s, want by web alone", e.AvoidedBy, e.State)
		}
		return nil
	})
	if failed := send(ofWeb, 10); failed > 0 {
		t.Errorf("web: %d of 10 failed after the ejection", failed)
	}
	// The negative control: for the others nothing has changed.
	if failed := send(ofThird, 4); failed != 2 {
		t.Errorf("third: %d of 4 failed: one client must not eject for another", failed)
	}
	if failed := send(ofAPI, 6); failed != 3 {
		t.Errorf("api: %d of 6 failed, want half", failed)
	}
	s.inState("prod/orders", s.endpoint("a"), "ejected")
	if e := s.endpoints("prod/orders")[s.endpoint("a")]; e.Reason != "callers get errors" {
		t.Errorf("it is ejected because %s", e.Reason)
	}
	if failed := send(ofThird, 10); failed > 0 {
		t.Errorf("third: %d of 10 failed after two clients agreed", failed)
	}
	if n := s.metric("connectd_ejections_total", "service", "orders"); n != 1 {
		t.Errorf("%v ejections counted, want 1", n)
	}
	webs["a"].handle.Store(nil)
	s.inState("prod/orders", s.endpoint("a"), "active")
	before := webs["a"].requests.Load()
	s.eventually(10*time.Second, func() error {
		send(ofThird, 2)
		if webs["a"].requests.Load() == before {
			return fmt.Errorf("a is active and not used")
		}
		return nil
	})
}
