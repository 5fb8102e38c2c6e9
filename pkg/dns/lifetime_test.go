// What begins, outlives and ends a seat: heartbeats, ports over restarts,
// sockets that are connected to ours, the namespace itself.

package dns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func TestHeartbeatAndClose(t *testing.T) {
	w := newWorld(t)
	f := w.redirects[0]
	for range 3 {
		select {
		case <-f.beats:
		case <-time.After(10 * time.Second):
			t.Fatal("no heartbeat")
		}
	}
	// Kernel first: while Redirect.Close runs the sockets still serve.
	q := query("orders", mdns.TypeA)
	f.onClose = func() { describe(t, q, w.ask(t, pack(t, q))) }
	if err := w.seat.Close(); err != nil {
		t.Fatal(err)
	}
	if !f.closed || f.late {
		t.Errorf("closed %v, beat after it %v", f.closed, f.late)
	}
	conn := w.dial(t, "udp")
	conn.Write(pack(t, q))
	if _, err := conn.Read(make([]byte, 512)); err == nil {
		t.Error("answered after Close")
	}
	if err := w.seat.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestAway(t *testing.T) {
	w := newWorld(t)
	seen, release := make(chan struct{}), make(chan struct{})
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte {
		close(seen)
		<-release
		return [][]byte{oddResponse(q)}
	})
	conn := w.dial(t, "udp")
	raw := pack(t, query("example.org", mdns.TypeA))
	conn.Write(raw)
	<-seen
	w.redirects[0].onClose = func() { close(release) }
	w.Away()
	if s := w.Stats(); s != (Stats{Forwarded: 1}) {
		t.Errorf("Away did not wait: %+v", s)
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], oddResponse(raw)) {
		t.Errorf("query in flight: %x, %v", buf[:n], err)
	}
	// Sockets connected to ours still get answers.
	q := query("orders", mdns.TypeA)
	conn.Write(pack(t, q))
	if n, err = conn.Read(buf); err != nil {
		t.Fatal(err)
	}
	describe(t, q, buf[:n])
}

func TestRedirectFails(t *testing.T) {
	var made []*fakeRedirect
	ns := newNetns(t)
	w := newWorld(t, func(p *Params, _ *plan.Desired) {
		p.Redirect = func(r Redirection) (Redirect, error) {
			if r.Task == 8 && len(made) == 2 {
				return nil, fmt.Errorf("map full")
			}
			f := &fakeRedirect{Redirection: r, beats: make(chan struct{}, 1)}
			made = append(made, f)
			return f, nil
		}
	})
	task := testTask()
	task.ID, task.Name, task.Resolvers = 8, "other", []netip.Addr{resolver4, resolver6}
	if _, err := w.Attach(t.Context(), task, ns); err == nil || err.Error() != "attach DNS of task other: redirect ::1: map full" {
		t.Errorf("error %v", err)
	}
	if len(made) != 2 || !made[1].closed {
		t.Errorf("the redirection made before was not taken back")
	}
}

// The ports survive a restart, and a taken one is replaced.
func TestPortsAreKept(t *testing.T) {
	w := newWorld(t)
	file := w.ports.path
	port := w.redirects[0].Local
	restart := func() netip.AddrPort {
		t.Helper()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		p := w.params
		p.PortFile = file
		var err error
		if w.Responder, err = New(p); err != nil {
			t.Fatal(err)
		}
		w.Publish(testPlan())
		w.redirects = nil
		if w.seat, err = w.Attach(t.Context(), testTask(), w.ns); err != nil {
			t.Fatal(err)
		}
		return w.redirects[0].Local
	}
	if got := restart(); got != port {
		t.Errorf("after a restart %v, was %v", got, port)
	}
	for _, network := range []string{"udp", "tcp"} {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var taken io.Closer
		if err := w.ns.Do(func() (err error) {
			if network == "udp" {
				taken, err = net.ListenPacket(network, port.String())
			} else {
				taken, err = net.Listen(network, port.String())
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		got := restart()
		taken.Close()
		if got == port || got.Port() == 0 {
			t.Errorf("with the %s port taken: %v", network, got)
		}
		port = got
	}
	if err := os.WriteFile(file, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := restart(); got.Port() == 0 {
		t.Errorf("with a broken file: %v", got)
	}
	// A planned task keeps its ports while another one comes first, a task
	// that is gone does not.
	if err := w.seat.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		planned []string
		keeps   bool
	}{{[]string{"other", "web"}, true}, {[]string{"third"}, false}} {
		d := testPlan()
		d.Tasks = nil
		for i, name := range test.planned {
			task := testTask()
			task.Name, task.ID = name, lb.TaskID(i+1)
			d.Tasks = append(d.Tasks, task)
		}
		w.Publish(d)
		seat, err := w.Attach(t.Context(), d.Tasks[0], w.ns)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte(test.planned[0])) || bytes.Contains(text, []byte(`"web"`)) != test.keeps {
			t.Errorf("with %v planned the port file is %s, %v", test.planned, text, err)
		}
		seat.Close()
	}
}

// A socket that is connected to ours must not be left with ECONNREFUSED for
// ever, and no other may be touched.
func TestConnectedSocketsReopen(t *testing.T) {
	w := newWorld(t, withTask(func(t *plan.Task) { t.Resolvers = []netip.Addr{resolver4, resolver6} }))
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte { return [][]byte{oddResponse(q)} })
	ours := []net.Conn{w.dial(t, "udp"), w.dialTo(t, "udp", w.redirects[1].Local), w.dialMapped(t)}
	bystander := w.dialTo(t, "udp", netip.AddrPortFrom(resolver4, 53))
	if err := w.seat.Close(); err != nil {
		t.Fatal(err)
	}
	for i, conn := range ours {
		if _, err := conn.Read(make([]byte, 512)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("socket %d: %v, want ECONNABORTED", i, err)
		}
	}
	raw := pack(t, query("example.org", mdns.TypeA))
	bystander.Write(raw)
	if _, err := bystander.Read(make([]byte, 512)); err != nil {
		t.Errorf("another socket of the task: %v", err)
	}
}

// dialMapped connects an IPv6 socket to our IPv4 one.
func (w *world) dialMapped(t *testing.T) net.Conn {
	t.Helper()
	local := w.redirects[0].Local
	var f *os.File
	if err := w.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "mapped")
		return unix.Connect(fd, &unix.SockaddrInet6{Port: int(local.Port()), Addr: local.Addr().As16()})
	}); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// A namespace whose Seat and Handle are closed dies: its end of a veth pair
// goes, and so does the other one.
func TestNamespaceDies(t *testing.T) {
	w := newWorld(t)
	newQuery := func() { // leaves spare upstream sockets and an open TCP connection
		conn := w.dial(t, "udp")
		conn.Write(pack(t, query("example.org", mdns.TypeA)))
		conn.Read(make([]byte, 512))
		conn.Close()
	}
	newQuery()
	stream := w.dial(t, "tcp")
	stream.Write(frame(pack(t, query("orders", mdns.TypeA))))
	if _, err := readFrame(stream); err != nil {
		t.Fatal(err)
	}
	outside := newNetns(t)
	updates := make(chan netlink.LinkUpdate, 16)
	stop := make(chan struct{})
	defer close(stop)
	if err := outside.Do(func() error { return netlink.LinkSubscribe(updates, stop) }); err != nil {
		t.Fatal(err)
	}
	var inner *os.File
	if err := w.ns.Do(func() (err error) { inner, err = os.Open("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	if err := outside.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out"}, PeerName: "in", PeerNamespace: netlink.NsFd(inner.Fd())})
	}); err != nil {
		t.Fatal(err)
	}
	inner.Close()
	stream.Close()
	if err := w.seat.Close(); err != nil {
		t.Fatal(err)
	}
	w.ns.Close()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case u := <-updates:
			if u.Header.Type == syscall.RTM_DELLINK && u.Attrs().Name == "out" {
				return
			}
		case <-deadline:
			t.Fatal("the namespace lives on: something of ours keeps it")
		}
	}
}
