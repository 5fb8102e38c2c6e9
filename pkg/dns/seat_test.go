package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
)

// A sockmap takes a listener of plain TCP only.
func TestListener(t *testing.T) {
	raw, err := newWorld(t).redirects[0].Listener.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
			t.Errorf("protocol %d, %v", p, err)
		}
	})
}

func TestSeatAnswers(t *testing.T) {
	w := newWorld(t)
	q := query("oRdErS", mdns.TypeA)
	if got := describe(t, q, w.ask(t, pack(t, q))); got != "127.254.0.1" {
		t.Errorf("orders is %s", got)
	}
	// A new name, and one that goes, without touching the seat.
	d := testPlan()
	d.Services = append(d.Services[1:2:2], service("prod", "new", name4("new", "127.254.0.9")))
	w.Publish(d)
	q = query("new", mdns.TypeA)
	if got := describe(t, q, w.ask(t, pack(t, q))); got != "127.254.0.9" {
		t.Errorf("new is %s", got)
	}
	// A changed scope.
	d = testPlan()
	d.Tasks[0].Namespaces = []string{"shared", "prod"}
	w.Publish(d)
	q = query("orders", mdns.TypeA)
	if got := describe(t, q, w.ask(t, pack(t, q))); got != "127.254.1.7" {
		t.Errorf("orders, shared first, is %s", got)
	}
	if s := w.Stats(); s != (Stats{Answered: 3}) {
		t.Errorf("stats %+v", s)
	}
}

// A response that no encoder of ours would make, to see that none was used.
func oddResponse(query []byte) []byte {
	b := append(bytes.Clone(query), "\xc0\x0c\x00\x01\x00\x01trailing bytes that are no record"...)
	b[2] |= bitQR | bitTC
	b[3] |= 0x40 // the reserved bit
	return b
}

func TestForwardUnchanged(t *testing.T) {
	w := newWorld(t)
	seen := make(chan []byte, 10)
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte {
		seen <- bytes.Clone(q)
		forged := bytes.Clone(oddResponse(q))
		forged[0]++
		return [][]byte{forged, q[:5], q, oddResponse(q)}
	})
	edns := query("ExAmPlE.org", mdns.TypeAAAA)
	edns.SetEdns0(4096, true)
	edns.IsEdns0().Option = []mdns.EDNS0{&mdns.EDNS0_COOKIE{Code: mdns.EDNS0COOKIE, Cookie: "0102030405060708"}}
	big := query("example.org", mdns.TypeTXT)
	big.Extra = append(big.Extra, &mdns.TXT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeTXT}, Txt: slices.Repeat([]string{string(bytes.Repeat([]byte("x"), 255))}, 100)})
	update := new(mdns.Msg).SetUpdate("example.org.")
	for name, m := range map[string]*mdns.Msg{"EDNS": edns, "25 kB": big, "update": update, "out of scope": query("vault", mdns.TypeA)} {
		raw := pack(t, m)
		got := w.ask(t, raw)
		if q := <-seen; !bytes.Equal(q, raw) {
			t.Errorf("%s: resolver got %x, asked was %x", name, q, raw)
		}
		if want := oddResponse(raw); !bytes.Equal(got, want) {
			t.Errorf("%s: answer %x, resolver sent %x", name, got, want)
		}
	}
	w.seat.idle(t.Context())
	if s := w.Stats(); s != (Stats{Forwarded: 4}) {
		t.Errorf("stats %+v", s)
	}
}

// Every upstream socket is marked, and has a port that the kernel chose anew.
func TestForwardSocket(t *testing.T) {
	w := newWorld(t)
	ports := make(map[int]bool)
	const sockets = 3 * spareBatch // more than one visit to the namespace makes
	for range sockets {
		f, err := w.seat.dialUDP(netip.AddrPortFrom(resolver4, 53))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != netns.Mark {
				t.Errorf("mark %#x, %v", mark, err)
			}
			if sa, err := unix.Getsockname(int(fd)); err == nil {
				ports[sa.(*unix.SockaddrInet4).Port] = true
			}
		})
		f.Close()
	}
	if len(ports) < sockets/2 {
		t.Errorf("%d sockets had %d ports", sockets, len(ports))
	}
}

func TestResolverRefuses(t *testing.T) {
	w := newWorld(t) // nothing listens on port 53
	q := query("example.org", mdns.TypeA)
	m := unpack(t, w.ask(t, pack(t, q)))
	if m.Rcode != mdns.RcodeServerFailure || m.Id != q.Id || m.Question[0] != q.Question[0] {
		t.Errorf("answer %v", m)
	}
	conn := w.dial(t, "tcp")
	conn.Write(frame(pack(t, q)))
	if b, err := io.ReadAll(conn); err == nil {
		t.Errorf("TCP ended with %x, want a reset", b)
	}
	if s := w.Stats(); s != (Stats{UpstreamError: 2}) {
		t.Errorf("stats %+v", s)
	}
}

func TestResolverSilent(t *testing.T) {
	w := newWorld(t, withTimeout(50*time.Millisecond))
	seen := make(chan struct{}, 1)
	newUpstream(t, w.ns, resolver4, func([]byte) [][]byte { seen <- struct{}{}; return nil })
	conn := w.dial(t, "udp")
	conn.Write(pack(t, query("example.org", mdns.TypeA)))
	<-seen
	w.seat.idle(t.Context())
	if s := w.Stats(); s != (Stats{Timeout: 1}) {
		t.Errorf("stats %+v", s)
	}
	// The next answer on the socket is that of the next query: nothing was
	// said about the one before.
	q := query("orders", mdns.TypeA)
	conn.Write(pack(t, q))
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	describe(t, q, buf[:n])
}

func TestInFlightIsBounded(t *testing.T) {
	w := newWorld(t)
	newUpstream(t, w.ns, resolver4, func([]byte) [][]byte { return nil })
	w.seat.inFlight.Add(seatInFlight)
	w.inFlight.Add(seatInFlight)
	conn := w.dial(t, "udp")
	conn.Write(pack(t, query("example.org", mdns.TypeA)))
	q := query("orders", mdns.TypeA)
	conn.Write(pack(t, q))
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	describe(t, q, buf[:n]) // ours are answered all the same
	if s := w.Stats(); s != (Stats{Answered: 1, Dropped: 1}) {
		t.Errorf("stats %+v", s)
	}
	if a, b := w.seat.inFlight.Load(), w.inFlight.Load(); a != seatInFlight || b != seatInFlight {
		t.Errorf("in flight %d and %d after the drop", a, b)
	}
}

func TestMalformed(t *testing.T) {
	w := newWorld(t)
	conn := w.dial(t, "udp")
	raw := pack(t, query("orders", mdns.TypeA))
	conn.Write(raw[:5])
	conn.Write(nil)
	response := bytes.Clone(raw)
	response[2] |= bitQR
	conn.Write(response)
	conn.Write(raw[:15])
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if m := unpack(t, buf[:n]); m.Rcode != mdns.RcodeFormatError {
		t.Errorf("answer %v", m)
	}
	if s := w.Stats(); s != (Stats{FormErr: 1, Dropped: 3}) {
		t.Errorf("stats %+v", s)
	}
}

func TestIPv6(t *testing.T) {
	two := withTask(func(t *plan.Task) { t.Resolvers = []netip.Addr{resolver4, resolver6, resolver4} })
	w := newWorld(t, two)
	if len(w.redirects) != 2 {
		t.Fatalf("%d redirections", len(w.redirects))
	}
	v6 := w.redirects[1]
	if v6.Resolver != resolver6 || v6.Local.Addr() != resolver6 || v6.Local.Port() == w.redirects[0].Local.Port() {
		t.Errorf("redirection %+v", v6.Redirection)
	}
	// Each pair knows its own resolver.
	for i, at := range []netip.Addr{resolver4, resolver6} {
		newUpstream(t, w.ns, at, func(q []byte) [][]byte {
			b := bytes.Clone(q)
			b[2] |= bitQR
			b[3] = byte(i + 2)
			return [][]byte{b}
		})
		for _, network := range []string{"udp", "tcp"} {
			conn := w.dialTo(t, network, w.redirects[i].Local)
			raw := pack(t, query("example.org", mdns.TypeA))
			if network == "tcp" {
				raw = frame(raw)
			}
			conn.Write(raw)
			buf := make([]byte, 512)
			n, err := io.ReadAtLeast(conn, buf, len(raw))
			if err != nil {
				t.Fatal(err)
			}
			if network == "tcp" {
				buf = buf[2:]
			}
			if n == 0 || buf[3] != byte(i+2) {
				t.Errorf("%s: answered by resolver %d, want %d", network, buf[3], i+2)
			}
		}
	}
	q := query("both", mdns.TypeAAAA)
	if got := describe(t, q, w.ask(t, pack(t, q))); got != "fd00::3" {
		t.Errorf("both is %s", got)
	}
}

func TestNoIPv6(t *testing.T) {
	ns := newNetns(t)
	if err := ns.Do(func() error { // /proc/sys/net is that of the writing thread
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	task := testTask()
	task.Resolvers = []netip.Addr{resolver6, resolver4}
	before := len(w.redirects)
	seat, err := w.Attach(t.Context(), task, ns)
	if err != nil {
		t.Fatal(err)
	}
	defer seat.Close()
	got := w.redirects[before:]
	if len(got) != 1 || got[0].Resolver != resolver4 {
		t.Fatalf("redirections %+v", got)
	}
	conn, err := ns.DialMarked(t.Context(), "udp", got[0].Local.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	q := query("both", mdns.TypeAAAA)
	conn.Write(pack(t, q))
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(t, q, buf[:n]); got != "nodata" {
		t.Errorf("AAAA without IPv6 is %s", got)
	}
}

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

func TestGoResolver(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		w := newWorld(t)
		newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte {
			m := new(mdns.Msg)
			if m.Unpack(q) != nil {
				return nil
			}
			r := new(mdns.Msg).SetReply(m)
			if m.Question[0].Qtype == mdns.TypeA {
				rr, err := mdns.NewRR(m.Question[0].Name + " 60 IN A 192.0.2.1")
				if err != nil {
					panic(err)
				}
				r.Answer = append(r.Answer, rr)
			}
			b, err := r.Pack()
			if err != nil {
				panic(err)
			}
			return [][]byte{b}
		})
		r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return w.ns.DialMarked(ctx, network, w.redirects[0].Local.String())
		}}
		for name, want := range map[string]string{
			"orders.": "127.254.0.1", "both.": "127.254.0.3 fd00::3", "orders.corp.example.": "127.254.0.1", "example.org.": "192.0.2.1",
		} {
			addrs, err := r.LookupNetIP(t.Context(), "ip", name)
			if err != nil {
				t.Errorf("%s: %v", network, err)
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			if got := join(addrs); got != want {
				t.Errorf("%s: %s is %s, want %s", network, name, got, want)
			}
		}
	}
}

func join(addrs []netip.Addr) string {
	var b bytes.Buffer
	for i, a := range addrs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Unmap().String())
	}
	return b.String()
}

// Publish, queries and the coming and going of seats at once: for -race.
func TestConcurrently(t *testing.T) {
	w := newWorld(t)
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte { return [][]byte{oddResponse(q)} })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 50 {
				q := query([]string{"orders", "example.org", "both", "cache"}[i], mdns.TypeA)
				w.ask(t, pack(t, q))
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			w.Publish(testPlan())
			w.Resolve("orders", 7)
			w.Stats()
		}
	})
	wg.Wait()
	w.Away()
}

func BenchmarkSeatAnswer(b *testing.B) {
	w := newWorld(b)
	conn := w.dial(b, "udp")
	raw, buf := pack(b, query("orders", mdns.TypeA)), make([]byte, 512)
	for b.Loop() {
		conn.Write(raw)
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeatForward(b *testing.B) {
	for _, mode := range []string{"direct", "forwarded"} {
		b.Run(mode, func(b *testing.B) {
			w := newWorld(b)
			newUpstream(b, w.ns, resolver4, func(q []byte) [][]byte { q[2] |= bitQR; return [][]byte{q} })
			to := w.redirects[0].Local
			if mode == "direct" {
				to = netip.AddrPortFrom(resolver4, 53)
			}
			conn := w.dialTo(b, "udp", to)
			raw, buf := pack(b, query("example.org", mdns.TypeA)), make([]byte, 512)
			b.ReportAllocs()
			for b.Loop() {
				conn.Write(raw)
				if _, err := conn.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
