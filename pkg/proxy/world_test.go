package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

// world is a forwarder whose listener is dialled directly: what the kernel
// does to bring connections there is package datapath's to test.
type world struct {
	testing.TB
	p    *Proxy
	host *testutil.Host
	vip  netip.AddrPort
	seat *Seat

	stranger atomic.Bool // the kernel knows of nobody who connected

	mu      sync.Mutex
	task    *plan.Task
	spec    lb.Service
	strikes []lb.Strike
	away    bool
}

type kernel struct{ w *world }

func (k kernel) Beat() {}
func (k kernel) Caller(_, _ netip.AddrPort) (lb.TaskID, bool) {
	return 1, !k.w.stranger.Load()
}
func (k kernel) Away() error {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	k.w.away = true
	return nil
}
func (k kernel) Close() error { return nil }

// newWorld starts a forwarder for one service with the endpoints.
func newWorld(tb testing.TB, endpoints ...string) *world {
	tb.Helper()
	return newWorldOn(tb, nil, endpoints...)
}

// newWorldOn is one whose clients are on a host; nil is this machine.
func newWorldOn(tb testing.TB, host *testutil.Host, endpoints ...string) *world {
	tb.Helper()
	w := &world{TB: tb, host: host, task: &plan.Task{Task: lb.Task{Name: "web"}, ID: 1, Scope: [4]uint64{1}, Owner: lb.NewOwner("web", "shop")}}
	home, err := netns.Open("/proc/thread-self/ns/net")
	if err != nil {
		tb.Fatal(err)
	}
	w.p, err = New(Params{
		Log: slog.New(slog.NewTextHandler(testWriter{tb}, nil)), Home: home, Drain: 5 * time.Second,
		Forward: func(l Listeners) (Forwarder, error) {
			sa, err := unix.Getsockname(l.V4)
			w.vip = addrPort(sa)
			return kernel{w}, err
		},
		Strike: func(s lb.Strike) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.strikes = append(w.strikes, s)
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	var ns *netns.Handle
	if host != nil {
		ns = host.NS()
	}
	if w.seat, err = w.p.Attach(context.Background(), w.task, ns); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.seat.Close(); err != nil {
			tb.Error(err)
		}
		if err := w.p.Close(); err != nil {
			tb.Error(err)
		}
		home.Close()
	})
	w.spec = lb.Service{
		Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}, Protocol: lb.TCP,
		HTTP: &lb.HTTP{RequestTimeout: 15 * time.Second, IdleTimeout: 5 * time.Minute,
			Retry: lb.Retry{Attempts: 2, BudgetPercent: 20, BudgetFloor: 100}},
	}
	w.publish(endpoints...)
	return w
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.tb.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// change publishes the service anew after a change.
func (w *world) change(change func(*lb.HTTP), endpoints ...string) {
	h := *w.spec.HTTP
	change(&h)
	w.spec.HTTP = &h
	w.publish(endpoints...)
}

func (w *world) publish(endpoints ...string) {
	spec := w.spec
	s := &plan.Service{Service: &spec, ID: 1, Names: []plan.Name{{DNSName: "orders", V4: w.vip.Addr(), Ports: []uint16{w.vip.Port()}}}}
	for i, e := range endpoints {
		ep := plan.Endpoint{Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort(e), Weight: 1, Owner: lb.NewOwner(fmt.Sprint("server-", 1+i), "shop")}, ID: lb.EndpointID(1 + i)}
		s.Endpoints = append(s.Endpoints, ep)
		s.SlotsV4 = append(s.SlotsV4, ep.ID)
	}
	w.p.Publish(&plan.Desired{Services: []*plan.Service{s}, Tasks: []*plan.Task{w.task}})
}

// serve starts a server and returns its address.
func serve(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	s := httptest.NewServer(h)
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// named answers with a name.
func named(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }
}

// raw starts a server of bare connections.
func raw(tb testing.TB, handle func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				handle(c)
				c.Close()
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// client is an HTTP client with connections of its own.
func (w *world) client() *http.Client {
	t := &http.Transport{DisableCompression: true}
	if w.host != nil {
		t.DialContext = w.host.Dial
	}
	w.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func (w *world) url(path string) string { return "http://" + w.vip.String() + path }

// get asks once over a connection of its own.
func (w *world) get(path string) (int, string) {
	w.Helper()
	c := w.client()
	defer c.CloseIdleConnections()
	r, err := c.Get(w.url(path))
	if err != nil {
		w.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// dial opens a bare connection to the forwarder.
func (w *world) dial() *bareConn {
	w.Helper()
	c, err := net.Dial("tcp", w.vip.String())
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &bareConn{w, c, bufio.NewReader(c)}
}

type bareConn struct {
	tb testing.TB
	net.Conn
	r *bufio.Reader
}

func (c *bareConn) send(text string) {
	c.tb.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.tb.Fatal(err)
	}
}

// response reads one response with its body.
func (c *bareConn) response(method string) (*http.Response, string) {
	c.tb.Helper()
	r, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.tb.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	return r, string(b)
}

// closed waits for the connection's end.
func (c *bareConn) closed() error {
	b, err := io.ReadAll(c.r)
	if len(b) > 0 {
		return fmt.Errorf("%q before the end", b)
	}
	return err
}
