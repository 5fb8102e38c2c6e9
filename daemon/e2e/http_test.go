package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// web is an HTTP server on a host, port 8080, that says its name.
type web struct {
	name     string
	requests atomic.Int64
	handle   atomic.Pointer[http.HandlerFunc] // nil: says its name
	from     sync.Map                         // netip.Addr that asked -> *atomic.Int64
}

// startWeb starts an HTTP server on a host.
func startWeb(h *testutil.Host, name string) *web {
	s := &web{name: name}
	serveWeb(h, s)
	return s
}

// serveWeb has it listen. end ends it when it has answered what it was asked.
func serveWeb(h *testutil.Host, s *web) (end func()) {
	server := &http.Server{Handler: s}
	l := h.Listen("tcp", at(h.Addr4(), 8080))
	h.OnClose(func() { server.Close() })
	go server.Serve(l)
	return func() { server.Shutdown(context.Background()) }
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.askedBy(at.Addr()).Add(1)
	}
	if h := s.handle.Load(); h != nil {
		(*h)(w, r)
		return
	}
	fmt.Fprint(w, s.name)
}

// askedBy counts the requests from an address.
func (s *web) askedBy(client netip.Addr) *atomic.Int64 {
	n, _ := s.from.LoadOrStore(client, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (s *web) answer(h http.HandlerFunc) { s.handle.Store(&h) }

// newHTTPShop is a shop whose servers speak HTTP.
func newHTTPShop(tb testing.TB, servers ...string) (*shop, map[string]*web) {
	tb.Helper()
	s := newShop(tb)
	webs := make(map[string]*web)
	for _, name := range servers {
		h := s.w.Host(name)
		s.servers[name] = h
		webs[name] = startWeb(h, name)
	}
	return s, webs
}

// httpClient makes connections from inside a host.
func httpClient(tb testing.TB, h *testutil.Host) *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return h.Dial(ctx, network, address)
	}}
	tb.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func get(c *http.Client, url string) (status int, body string, err error) {
	r, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// A name of an HTTP service leads through the forwarder: each request of one
// connection is balanced, a 503 is not seen, and the server sees the client's
// own address.
func TestHTTP(t *testing.T) {
	s, webs := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	url := "http://" + s.at80("orders") + "/"
	c := httpClient(t, s.web)
	got := map[string]int{}
	for range 20 {
		_, body, err := get(c, url)
		if err != nil {
			t.Fatal(err)
		}
		got[body]++
	}
	if got["a"] != 10 || got["b"] != 10 {
		t.Errorf("20 requests of one connection went %v", got)
	}
	webs["a"].answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	for range 10 {
		if status, body, err := get(c, url); status != 200 || body != "b" {
			t.Errorf("got %d %q (%v), want b's answer", status, body, err)
		}
	}
	webs["b"].answer(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host, " ", r.Header.Get("X-Forwarded-For"))
	})
	own := s.web.Addr4().String()
	if _, body, _ := get(c, url); body != own+" "+own {
		t.Errorf("the server sees the request come from %q, want %s", body, own)
	}
	out, err := s.web.Command(context.Background(), "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url).Output()
	if err != nil || string(out) != "200" {
		t.Errorf("curl says %s (%v)", out, err)
	}
}
