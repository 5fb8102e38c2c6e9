package dns

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// newNetns makes a network namespace with lo up that no file names, so that
// nothing stays behind after a crash.
func newNetns(tb testing.TB) *netns.Handle {
	tb.Helper()
	var h *netns.Handle
	err := netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
		// Opened by another thread, which sees that it is not its own.
		path, opened := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), make(chan error)
		go func() {
			var err error
			h, err = netns.Open(path)
			opened <- err
		}()
		return <-opened
	})
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	if err != nil {
		tb.Fatal(err)
	}
	if h.Self() { // or the test would change the machine
		tb.Fatal("the new network namespace is our own")
	}
	tb.Cleanup(func() { h.Close() })
	return h
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

var (
	resolver4 = netip.MustParseAddr("127.0.0.53")
	resolver6 = netip.MustParseAddr("::1")
)

// service makes a planned service of one namespace and name.
func service(namespace, name string, names ...plan.Name) *plan.Service {
	return &plan.Service{
		Service: &lb.Service{Name: lb.ServiceName{Namespace: namespace, DiscoveryName: name}},
		Names:   names,
	}
}

func name4(name, v4 string) plan.Name {
	return plan.Name{DNSName: name, V4: netip.MustParseAddr(v4)}
}

func name46(name, v4, v6 string) plan.Name {
	return plan.Name{DNSName: name, V4: netip.MustParseAddr(v4), V6: netip.MustParseAddr(v6)}
}

// testPlan is the catalog of most tests: what task web (prod, then shared)
// may resolve, and secret, which it may not.
func testPlan() *plan.Desired {
	return &plan.Desired{
		Services: []*plan.Service{
			service("prod", "both", name46("both", "127.254.0.3", "fd00::3")),
			service("prod", "orders", name4("orders", "127.254.0.1"), name4("orders.prod", "127.254.0.2")),
			service("prod", "six", plan.Name{DNSName: "six", V6: netip.MustParseAddr("fd00::6")}),
			service("secret", "vault", name4("vault", "127.254.9.9")),
			service("shared", "cache", name4("cache", "127.254.1.1"), name4("full.corp.example", "127.254.1.2"), name4("full", "127.254.1.3")),
			service("shared", "orders", name4("orders", "127.254.1.7")),
		},
		Tasks: []*plan.Task{testTask()},
	}
}

func testTask() *plan.Task {
	return &plan.Task{ID: 7, Task: lb.Task{
		Name: "web", Namespaces: []string{"prod", "shared"},
		Resolvers: []netip.Addr{resolver4}, Search: []string{"corp.example", "Example."},
	}}
}

// fakeRedirect records what the datapath would see.
type fakeRedirect struct {
	Redirection
	beats  chan struct{}
	mu     sync.Mutex
	closed bool
	late   bool // a Beat came after Close
	// onClose, if set, is called by Close.
	onClose func()
}

func (f *fakeRedirect) Beat() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = f.late || f.closed
	select {
	case f.beats <- struct{}{}:
	default:
	}
}

func (f *fakeRedirect) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.onClose != nil {
		f.onClose()
	}
	return nil
}

// world is a Responder with one attached task in a namespace of its own.
type world struct {
	*Responder
	ns        *netns.Handle
	seat      *Seat
	redirects []*fakeRedirect
}

type option func(*Params, *plan.Desired)

func newWorld(tb testing.TB, opts ...option) *world {
	tb.Helper()
	w := &world{ns: newNetns(tb)}
	p := Params{
		Log:      slog.New(slog.NewTextHandler(tb.Output(), nil)),
		PortFile: filepath.Join(tb.TempDir(), "ports.json"),
		Redirect: func(r Redirection) (Redirect, error) {
			f := &fakeRedirect{Redirection: r, beats: make(chan struct{}, 1)}
			w.redirects = append(w.redirects, f)
			return f, nil
		},
	}
	d := testPlan()
	for _, o := range opts {
		o(&p, d)
	}
	var err error
	if w.Responder, err = New(p); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	w.Publish(d)
	if w.seat, err = w.Attach(tb.Context(), d.Tasks[0], w.ns); err != nil {
		tb.Fatal(err)
	}
	return w
}

func withTask(f func(*plan.Task)) option {
	return func(_ *Params, d *plan.Desired) { f(d.Tasks[0]) }
}

func withTimeout(timeout time.Duration) option {
	return func(p *Params, _ *plan.Desired) { p.Timeout = timeout }
}

func (w *world) dial(tb testing.TB, network string) net.Conn {
	tb.Helper()
	return w.dialTo(tb, network, w.redirects[0].Local)
}

func (w *world) dialTo(tb testing.TB, network string, to netip.AddrPort) net.Conn {
	tb.Helper()
	conn, err := w.ns.DialMarked(tb.Context(), network, to.String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// ask sends one raw query over UDP and returns the raw answer.
func (w *world) ask(tb testing.TB, query []byte) []byte {
	tb.Helper()
	conn := w.dial(tb, "udp")
	defer conn.Close()
	if _, err := conn.Write(query); err != nil {
		tb.Fatal(err)
	}
	buf := make([]byte, maxMessage)
	n, err := conn.Read(buf)
	if err != nil {
		tb.Fatal(err)
	}
	return buf[:n]
}

// upstream is a fake resolver at an address of the namespace, port 53. answer
// returns the messages to send for a query, byte for byte.
type upstream struct {
	udp *net.UDPConn
	tcp *net.TCPListener
	wg  sync.WaitGroup
}

func newUpstream(tb testing.TB, ns *netns.Handle, at netip.Addr, answer func(query []byte) [][]byte) *upstream {
	tb.Helper()
	u := &upstream{}
	addr := netip.AddrPortFrom(at, 53)
	if err := ns.Do(func() (err error) {
		if u.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		u.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	u.wg.Go(func() {
		buf := make([]byte, maxMessage)
		for {
			n, from, err := u.udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range answer(buf[:n]) {
				u.udp.WriteToUDPAddrPort(a, from)
			}
		}
	})
	u.wg.Go(func() {
		for {
			conn, err := u.tcp.AcceptTCP()
			if err != nil {
				return
			}
			u.wg.Go(func() { serveUpstream(conn, answer) })
		}
	})
	tb.Cleanup(u.close)
	return u
}

func serveUpstream(conn net.Conn, answer func([]byte) [][]byte) {
	defer conn.Close()
	for {
		query, err := readFrame(conn)
		if err != nil {
			return
		}
		for _, a := range answer(query) {
			conn.Write(frame(a))
		}
	}
}

// close ends the resolver; connections to it end with their clients.
func (u *upstream) close() {
	u.udp.Close()
	u.tcp.Close()
	u.wg.Wait()
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, int(head[0])<<8|int(head[1]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

func pack(tb testing.TB, m *mdns.Msg) []byte {
	tb.Helper()
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func unpack(tb testing.TB, b []byte) *mdns.Msg {
	tb.Helper()
	m := new(mdns.Msg)
	if err := m.Unpack(b); err != nil {
		tb.Fatalf("unpack %x: %v", b, err)
	}
	return m
}

func query(name string, qtype uint16) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(name), qtype)
	return m
}
