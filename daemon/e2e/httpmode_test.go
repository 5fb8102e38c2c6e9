package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestHTTPModes: a service becomes the forwarder's, the kernel's, and plain TCP
// again under load, and no client that repeats a request that nothing was heard
// of notices.
func TestHTTPModes(t *testing.T) {
	s, webs := newHTTPShop(t, "a", "b")
	for name, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, name, " ", r.Header.Get("X-Request-Id") != "")
		})
	}
	s.begin(service("orders", "", "a", "b"))
	address := s.at80("orders")
	l := s.requesting(s.web, address, 6, true)
	c := httpClient(t, s.web)
	c.Transport.(*http.Transport).DisableKeepAlives = true
	for _, step := range []struct {
		fields    string
		forwarded string
	}{
		{"appProtocol: http", "true"}, {"", "false"}, {"appProtocol: http", "true"}, {"appProtocol: http\nmode: direct", "false"},
		{"appProtocol: http", "true"}, {"appProtocol: http\nmode: direct", "false"}, {"", "false"},
	} {
		l.progress(s.node)
		s.catalog(service("orders", step.fields, "a", "b"))
		s.eventually(10*time.Second, func() error {
			_, body, err := get(c, "http://"+address+"/")
			if err == nil && body != "a "+step.forwarded && body != "b "+step.forwarded {
				err = fmt.Errorf("%q: %q, want %s", step.fields, body, step.forwarded)
			}
			return err
		})
		l.progress(s.node)
	}
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	t.Logf("%d requests, %d sent once more", l.done.Load(), l.retried.Load())
}
