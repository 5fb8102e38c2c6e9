package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// calls remembers the requests that servers got, by the id of each.
type calls struct {
	mu sync.Mutex
	by map[string][]string // server and body of each try
}

func newCalls() *calls { return &calls{by: make(map[string][]string)} }

// note remembers a request that server got.
func (c *calls) note(server string, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Header.Get("X-Request-Id")
	c.by[id] = append(c.by[id], server+string(body))
}

func (c *calls) of(id string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.by[id])
}

func (c *calls) tries() (requests, tries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.by {
		tries += len(list)
	}
	return len(c.by), tries
}

// patient keeps a failing endpoint in use, and lets every request be repeated.
const patient = "outlier: {consecutiveFailures: 1000}\n"

// TestHTTPRetries: an endpoint that answers 503 half of the time.
func TestHTTPRetries(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a", "b")
	seen := newCalls()
	var turn, refused atomic.Int64
	for name, w := range webs {
		w.answer(func(w http.ResponseWriter, r *http.Request) {
			seen.note(name, r)
			if name == "a" && turn.Add(1)%2 == 1 {
				refused.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, name)
		})
	}
	someRefused := func() int {
		t.Helper()
		n := int(refused.Swap(0))
		if n < 8 {
			t.Errorf("a has refused %d requests: too few to show anything", n)
		}
		return n
	}
	s.begin(service("orders", "appProtocol: http\n"+patient, "a", "b"),
		service("all", "appProtocol: http\nretry: {methods: all}\n"+patient, "a", "b"))
	c := httpClient(t, s.web)
	send := func(name, method, id string) (status int) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://"+s.at80(name)+"/", strings.NewReader("!"))
		if id != "" {
			req.Header.Set("X-Request-Id", id)
		}
		r, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %s", method, name, err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		return r.StatusCode
	}

	const n = 40
	for range n {
		if status := send("orders", "GET", ""); status != 200 {
			t.Errorf("GET: %d", status)
		}
	}
	want := n + someRefused()
	if requests, tries := seen.tries(); requests != n || tries != want {
		t.Errorf("%d requests arrived in %d tries, want %d in %d: ids stay over tries", requests, tries, n, want)
	}
	failed := 0
	for i := range n {
		id := fmt.Sprint("post-", i)
		if status := send("orders", "POST", id); status == 503 {
			failed++
		}
		if got := seen.of(id); len(got) != 1 {
			t.Errorf("POST %d arrived as %v", i, got)
		}
	}
	if want := someRefused(); failed != want {
		t.Errorf("%d of %d POSTs answered 503, want the %d that a refused", failed, n, want)
	}
	again := 0
	for i := range n {
		id := fmt.Sprint("all-", i)
		if status := send("all", "POST", id); status != 200 {
			t.Errorf("POST to all: %d", status)
		}
		switch got := seen.of(id); {
		case slices.Equal(got, []string{"a!", "b!"}):
			again++
		case len(got) != 1:
			t.Errorf("POST %d arrived as %v", i, got)
		}
	}
	if want := someRefused(); again != want {
		t.Errorf("%d of %d POSTs were repeated, want %d", again, n, want)
	}
}

// TestHTTPUnreachable: endpoints that refuse or swallow connections cost a
// request nothing but time, whatever its method.
func TestHTTPUnreachable(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a", "b", "c")
	vanish(t, s.web)
	two := func(name, endpoint string) string {
		return service(name, "appProtocol: http\n"+patient, "a") + "      - " + endpoint + "\n"
	}
	s.begin(two("refused", "{address: $b, port: 8081}"),
		two("hole", fmt.Sprintf("{address: %s, port: %d}", blackHole.Addr(), blackHole.Port())),
		two("down", "{address: $c, port: 8080}"))
	if err := s.servers["c"].SetLink(false); err != nil {
		t.Fatal(err)
	}
	c := httpClient(t, s.web)
	for _, name := range []string{"refused", "hole", "down"} {
		for _, method := range []string{"GET", "POST", "GET", "POST"} {
			req, _ := http.NewRequestWithContext(t.Context(), method, "http://"+s.at80(name)+"/", strings.NewReader("body"))
			begun := time.Now()
			r, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s %s: %s", method, name, err)
			}
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode != 200 || string(body) != "a" {
				t.Errorf("%s %s: %d %q", method, name, r.StatusCode, body)
			}
			// One try is given a second to connect, all of them 15.
			if took := time.Since(begun); took > 8*time.Second {
				t.Errorf("%s %s took %s", method, name, took)
			} else if took > 500*time.Millisecond {
				t.Logf("%s %s took %s", method, name, took.Round(time.Millisecond))
			}
		}
	}
	if n := webs["a"].requests.Load(); n != 12 {
		t.Errorf("a got %d requests, want each of 12 once", n)
	}
	// Nobody is left: 503, said by us.
	s.catalog("  - discoveryName: refused\n    clientAliases: [{dnsName: refused, port: 80}]\n    appProtocol: http\n    endpoints: [{address: $b, port: 8081}]\n")
	s.eventually(10*time.Second, func() error {
		r, err := c.Get("http://" + s.at80("refused") + "/")
		if err != nil {
			return err
		}
		r.Body.Close()
		if r.StatusCode != 503 || r.Header.Get("X-Connectd-Reason") != "connect_failed" {
			return fmt.Errorf("%d %v", r.StatusCode, r.Header)
		}
		return nil
	})
}
