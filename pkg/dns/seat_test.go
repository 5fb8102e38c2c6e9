package dns

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

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
