package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
)

func TestReads(t *testing.T) {
	n := newNode()
	c := serving(t, n.backend())
	ctx := t.Context()
	want := n.status()
	want.Verdict, want.Problems = VerdictOK, []Problem{}
	for _, tt := range []struct {
		name string
		ask  func() (any, error)
		want any
	}{
		{"status", func() (any, error) { return c.Status(ctx) }, &want},
		{"services", func() (any, error) { return c.Services(ctx, ServiceFilter{}) }, n.services()},
		{"services by name", func() (any, error) { return c.Services(ctx, ServiceFilter{Service: "cache"}) }, n.services()[:1]},
		{"services by full name", func() (any, error) { return c.Services(ctx, ServiceFilter{Service: "tools/orders"}) }, n.services()[2:]},
		{"services by namespace", func() (any, error) { return c.Services(ctx, ServiceFilter{Namespace: "tools"}) }, n.services()[2:]},
		{"services by name in a namespace", func() (any, error) { return c.Services(ctx, ServiceFilter{Service: "orders", Namespace: "tools"}) }, n.services()[2:]},
		{"services by name of another namespace", func() (any, error) { return c.Services(ctx, ServiceFilter{Service: "prod/orders", Namespace: "tools"}) }, []Service{}},
		{"services of no namespace", func() (any, error) { return c.Services(ctx, ServiceFilter{Namespace: "tool"}) }, []Service{}},
		{"endpoints", func() (any, error) { return c.Endpoints(ctx, EndpointFilter{}) }, n.endpoints},
		{"endpoints of one", func() (any, error) { return c.Endpoints(ctx, EndpointFilter{Service: "prod/orders"}) }, n.endpoints[1:3]},
		{"endpoints by state", func() (any, error) { return c.Endpoints(ctx, EndpointFilter{States: []string{"ejected", "draining"}}) }, n.endpoints[2:]},
		{"resolve", func() (any, error) { return c.Resolve(ctx, "a&b=c d", "") }, n.backend().Resolve("a&b=c d", "")},
		{"resolve for a task", func() (any, error) { return c.Resolve(ctx, "orders", "web") }, n.backend().Resolve("orders", "web")},
		{"reload", func() (any, error) { return c.Reload(ctx) }, &want.Config},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.ask()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	n := newNode()
	c := serving(t, n.backend())
	for _, tt := range []struct {
		name string
		call func(context.Context, string, netip.AddrPort) (*Endpoint, error)
		addr string
		want string
	}{
		{"drain", c.Drain, "10.66.0.3:8080", "draining"},
		{"drain again", c.Drain, "10.66.0.3:8080", "draining"},
		{"IPv4-mapped is the same endpoint", c.Undrain, "[::ffff:10.66.0.3]:8080", "active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := tt.call(t.Context(), "prod/orders", netip.MustParseAddrPort(tt.addr))
			if err != nil {
				t.Fatal(err)
			}
			if e.State != tt.want || n.endpoints[1].State != tt.want || e.Address != n.endpoints[1].Address {
				t.Errorf("answered %+v, have %+v, want state %s", e, n.endpoints[1], tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	n := newNode()
	n.reload = errors.New("catalog.yaml:3: bad")
	b := n.backend()
	b.Drain = func(context.Context, lb.ServiceName, netip.AddrPort, bool) error {
		return fmt.Errorf("drain: %w", &Error{CodeInvalid, "stopping"})
	}
	c := serving(t, b)
	ctx := t.Context()
	known, unknown := netip.MustParseAddrPort("10.66.0.3:8080"), netip.MustParseAddrPort("10.66.0.3:8081")
	for _, tt := range []struct {
		name string
		ask  func() (any, error)
		want Error
	}{
		{"ambiguous service", func() (any, error) { return c.Services(ctx, ServiceFilter{Service: "orders"}) },
			Error{CodeAmbiguous, "service orders is ambiguous: say prod/orders or tools/orders"}},
		{"unknown service", func() (any, error) { return c.Endpoints(ctx, EndpointFilter{Service: "prod/chache"}) },
			Error{CodeNotFound, "no service prod/chache; did you mean prod/cache?"}},
		{"unknown state", func() (any, error) { return c.Endpoints(ctx, EndpointFilter{States: []string{"dead"}}) },
			Error{CodeInvalid, `no state "dead": say active, pending, unhealthy, ejected, draining, removed`}},
		{"no name", func() (any, error) { return c.Resolve(ctx, "", "") }, Error{CodeInvalid, "no name given"}},
		{"unknown task", func() (any, error) { return c.Resolve(ctx, "orders", "wbe") }, Error{CodeNotFound, "no task wbe; connectd status lists them"}},
		{"drain of unknown service", func() (any, error) { return c.Drain(ctx, "order", known) },
			Error{CodeNotFound, "no service order; did you mean prod/orders or tools/orders?"}},
		{"drain of unknown endpoint", func() (any, error) { return c.Drain(ctx, "prod/orders", unknown) },
			Error{CodeNotFound, "service prod/orders has no endpoint 10.66.0.3:8081; it has 10.66.0.3:8080 and 10.66.0.4:8080"}},
		{"drain of no address", func() (any, error) { return c.Drain(ctx, "prod/orders", netip.AddrPort{}) },
			Error{CodeNotFound, "service prod/orders has no endpoint invalid AddrPort; it has 10.66.0.3:8080 and 10.66.0.4:8080"}},
		{"code chosen by the backend", func() (any, error) { return c.Undrain(ctx, "prod/orders", known) }, Error{CodeInvalid, "drain: stopping"}},
		{"reload that fails", func() (any, error) { return c.Reload(ctx) }, Error{CodeFailed, "catalog.yaml:3: bad"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.ask()
			got, ok := errors.AsType[*Error](err)
			if !ok || *got != tt.want {
				t.Errorf("got  %#v\nwant %#v", err, tt.want)
			}
		})
	}
}

// A list is being written when it turns out that a row cannot be: the client
// must not take what came for all of it.
func TestUnencodableAnswerIsAnError(t *testing.T) {
	b := newNode().backend()
	b.Status = func() Status { return Status{UptimeSeconds: math.Inf(1)} }
	b.Resolve = func(string, string) []Resolution {
		return []Resolution{{Targets: []Target{{Endpoints: []Share{{Percent: math.NaN()}}}}}}
	}
	c := serving(t, b)
	if got, err := c.Resolve(t.Context(), "orders", ""); err == nil {
		t.Errorf("resolve: no error, but %v", got)
	}
	_, err := c.Status(t.Context())
	if got, ok := errors.AsType[*Error](err); !ok || got.Code != CodeFailed {
		t.Errorf("got %v, want an Error with code failed", err)
	}
}

func TestDaemonAway(t *testing.T) {
	socket := socketPath(t)
	if _, err := NewClient(socket).Status(t.Context()); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), socket) {
		t.Errorf("no socket: got %v, want ErrNotRunning and the path", err)
	}
	leaveStale(t, socket)
	if _, err := NewClient(socket).Status(t.Context()); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), socket) {
		t.Errorf("stale socket: got %v, want ErrNotRunning and the path", err)
	}
}

// A listener that is no connectd: each answer must end in an error that names
// the socket, never in a hang or a panic.
func TestNotConnectd(t *testing.T) {
	for name, answer := range map[string]string{
		"rubbish":      "SSH-2.0-x\r\n",
		"nothing":      "",
		"other server": "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
		"not JSON":     "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
		"cut short":    "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			if err := os.Mkdir(filepath.Dir(socket), 0o755); err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() { ln.Close(); <-done }()
			go func() {
				defer close(done)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				conn.Read(make([]byte, 4096))
				conn.Write([]byte(answer))
				conn.Close()
			}()
			if _, err := NewClient(socket).Status(t.Context()); err == nil || !strings.Contains(err.Error(), socket) {
				t.Errorf("got %v, want an error that names the socket", err)
			}
		})
	}
}

func TestHangingDaemon(t *testing.T) {
	socket := socketPath(t)
	mustListen(t, socket, Backend{}) // never served: connects succeed, nothing answers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := NewClient(socket).Status(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v, want that it does not answer", err)
	}
}

// leaveStale leaves a socket file as a killed daemon does.
func leaveStale(t *testing.T, socket string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}
