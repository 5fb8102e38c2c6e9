package datapath

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

func writeSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
}

func oks(n int) []exchange {
	out := make([]exchange, n)
	for i := range out {
		out[i] = exchange{send: parts(getHead), answer: parts(okHead)}
	}
	return out
}

// Connections of others to the same server, and of the same client to a service
// without HTTP, are not read.
func TestDirectBystanders(t *testing.T) {
	r := newDirectRig(t, script(oks(9)))
	other := r.w.Host("other")
	server := at(r.a.Addr4(), 8080)
	r.apply(func(d *plan.Desired) { d.Services = append(d.Services, service(2, lb.TCP, server)) })
	for _, to := range []struct {
		name string
		dial func(context.Context, string, string) (net.Conn, error)
		at   string
	}{{"no client", other.Dial, server}, {"past the VIP", r.web.Dial, server}, {"TCP service", r.web.Dial, at(vip4(2), 80)}} {
		c, err := to.dial(t.Context(), "tcp", to.at)
		if err != nil {
			t.Fatalf("%s: %s", to.name, err)
		}
		defer c.Close()
		r.run(c, oks(3))
	}
	r.run(r.dial(), oks(2))
	r.want2("the client's by the VIP", [6]uint64{2: 2}, 0)
	if services, endpoints, err := r.dp.HTTP(); len(services) != 1 || len(endpoints) != 1 || err != nil {
		t.Errorf("counters of services %v, endpoints %v (%v)", services, endpoints, err)
	}
}

func TestDirectIPv6(t *testing.T) {
	r := newDirectRig(t, serveStatus)
	l := r.a.Listen("tcp", at(r.a.Addr6(), 8080))
	go script(oks(9))(l)
	s := service(1, lb.TCP, at(r.a.Addr6(), 8080))
	s.HTTP = &lb.HTTP{Direct: true}
	r.apply(func(d *plan.Desired) { d.Services = []*plan.Service{s} })
	r.vip = at(vip6(1), 80)
	r.run(r.dial(), oks(3))
	r.want2("IPv6", [6]uint64{2: 3}, 0)
}

// A socket that goes elsewhere takes nothing along, and one that comes back
// begins anew.
func TestDirectReconnect(t *testing.T) {
	// The server reads on while the client is elsewhere.
	r := newDirectRig(t, script(oks(9)))
	fd := -1
	connect := func(to *unix.SockaddrInet4) {
		t.Helper()
		var err error
		if to == nil {
			var unspec unix.RawSockaddrAny // AF_UNSPEC
			if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), 16); e != 0 {
				err = e
			}
		} else {
			err = unix.Connect(fd, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(n int) {
		t.Helper()
		for range n {
			if _, err := unix.Write(fd, []byte(getHead)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, len(okHead))
			if n, _, err := unix.Recvfrom(fd, buf, unix.MSG_WAITALL); err != nil || n != len(buf) {
				t.Fatalf("read %d bytes (%v)", n, err)
			}
		}
	}
	vip := &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 80}
	server := &unix.SockaddrInet4{Addr: r.a.Addr4().As4(), Port: 8080}
	err := r.web.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	connect(vip)
	ask(2)
	connect(nil)
	connect(server)
	ask(3)
	r.want2("elsewhere", [6]uint64{2: 2}, 0)
	connect(nil)
	connect(vip)
	ask(1)
	r.want2("back", [6]uint64{2: 3}, 0)
}

// The next daemon goes on where the last one stopped, in the middle of a
// request.
func TestDirectRestart(t *testing.T) {
	r := newDirectRig(t, script(oks(9)))
	c := r.dial()
	r.run(c, oks(2))
	io.WriteString(c, getHead[:10])
	r.close()
	io.WriteString(c, getHead[10:20])
	r.open()
	want := r.want
	r.want = &plan.Desired{}
	r.apply(func(d *plan.Desired) { *d = *want })
	if err := r.dp.Direct(r.want); err != nil {
		t.Fatal(err)
	}
	r.run(c, []exchange{{send: parts(getHead[20:]), answer: parts(okHead)}})
	r.run(c, oks(1))
	r.want2("over a restart", [6]uint64{2: 4}, 0)

	// A daemon whose plan has no such service removes what it finds.
	r.close()
	r.open()
	if err := r.dp.Direct(&plan.Desired{}); err != nil {
		t.Fatal(err)
	}
	for _, h := range directHooks {
		if _, err := os.Stat(filepath.Join(linkDir(r.p.BPFFS), h.name)); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", h.name, err)
		}
	}
	for _, m := range httpMaps {
		if _, err := os.Stat(filepath.Join(mapDir(r.p.BPFFS), m)); !os.IsNotExist(err) {
			t.Errorf("map %s is still there (%v)", m, err)
		}
	}
}

// stranger is the cookie of no socket.
const stranger = 1 << 63

// crowd gives every near place to somebody else.
func (r *directRig) crowd() {
	r.tb.Helper()
	near := r.dp.objs.ExchangesNearV2
	for place := range near.MaxEntries() {
		if err := near.Put(place, connectExchange{Cookie: stranger}); err != nil {
			r.tb.Fatal(err)
		}
	}
}

// exchanges is how many connections are followed.
func (r *directRig) exchanges() (near, far int) {
	r.tb.Helper()
	for e, err := range all[uint32, connectExchange](r.dp.objs.ExchangesNearV2) {
		if err != nil {
			r.tb.Fatal(err)
		}
		if e.value.Cookie != 0 && e.value.Cookie != stranger {
			near++
		}
	}
	for _, err := range all[uint64, connectExchange](r.dp.objs.ExchangesFarV2) {
		if err != nil {
			r.tb.Fatal(err)
		}
		far++
	}
	return near, far
}

// Nothing is kept of connections that have ended, be it by an end that nobody
// told, whichever map they are in. Places of others stay theirs.
func TestDirectEnds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		crowded bool
	}{{"near", false}, {"far", true}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newDirectRig(t, script(oks(9)))
			if tc.crowded {
				r.crowd()
			}
			followed := func(want int) error {
				wantNear, wantFar := want, 0
				if tc.crowded {
					wantNear, wantFar = 0, want
				}
				if near, far := r.exchanges(); near != wantNear || far != wantFar {
					return fmt.Errorf("%d connections are near and %d far, want %d and %d", near, far, wantNear, wantFar)
				}
				return nil
			}
			missed, ended := r.dial(), r.dial()
			for _, c := range []net.Conn{missed, ended} {
				r.run(c, oks(2))
			}
			r.want2("two connections", [6]uint64{2: 4}, 0)
			if err := followed(2); err != nil {
				t.Fatal(err)
			}
			ended.Close()
			testutil.Eventually(t, 10*time.Second, func() error { return followed(1) })
			r.missEnd(missed)
			if err := followed(1); err != nil {
				t.Errorf("before the sweep: %s", err)
			}
			for range sweepShare {
				if _, err := r.dp.Sweep(func(uint64) (*netns.Handle, bool) { return r.web.NS(), true }); err != nil {
					t.Fatal(err)
				}
			}
			if err := followed(0); err != nil {
				t.Errorf("after the sweep: %s", err)
			}
			if !tc.crowded {
				return
			}
			for e, err := range all[uint32, connectExchange](r.dp.objs.ExchangesNearV2) {
				if err != nil || e.value.Cookie != stranger {
					t.Fatalf("place %d is %x's (%v)", e.key, e.value.Cookie, err)
				}
			}
		})
	}
}

// missEnd closes a connection while sock_ops is not attached, and makes it an old
// one.
func (r *directRig) missEnd(c net.Conn) {
	r.tb.Helper()
	if err := r.detach("sock_ops"); err != nil {
		r.tb.Fatal(err)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := r.dp.Publish(); err != nil {
		r.tb.Fatal(err)
	}
	for e, err := range r.dp.connections() {
		if err != nil {
			r.tb.Fatal(err)
		}
		e.value.StartedNs = monotonic() - uint64(2*closingGrace)
		if err := r.dp.objs.ConnectionsV1.Put(&e.key, &e.value); err != nil {
			r.tb.Fatal(err)
		}
	}
}

// What an earlier build attached, and this one does not, goes.
func TestDirectRetired(t *testing.T) {
	r := newDirectRig(t, script(oks(9)))
	for _, p := range []*plan.Desired{{}, r.want} {
		old := filepath.Join(linkDir(r.p.BPFFS), retiredHooks[0].name)
		if err := attachNew(retiredHooks[0], r.dp.objs.SockOps, r.p.Cgroup, old); err != nil {
			t.Fatal(err)
		}
		if err := r.dp.Direct(p); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", old, err)
		}
	}
	r.run(r.dial(), oks(2))
	r.want2("after it", [6]uint64{2: 2}, 0)
}

// What somebody has detached is attached again.
func TestDirectDetached(t *testing.T) {
	r := newDirectRig(t, script(oks(9)))
	c := r.dial()
	r.run(c, oks(1))
	if err := r.detach("http_ingress"); err != nil {
		t.Fatal(err)
	}
	r.run(c, oks(1))
	r.want2("detached", [6]uint64{2: 1}, 0)
	if n, err := r.dp.Resync(r.want); n != 1 || err != nil {
		t.Errorf("repaired %d (%v), want 1", n, err)
	}
	if n, err := r.dp.Resync(r.want); n != 0 || err != nil {
		t.Errorf("then repaired %d (%v), want 0", n, err)
	}
	r.run(r.dial(), oks(2))
	r.want2("attached again", [6]uint64{2: 3}, 0)
}

// Maps of a build with another layout are replaced.
func TestDirectForeignMaps(t *testing.T) {
	r := newDirectRig(t, script(oks(9)))
	if err := r.dp.Direct(&plan.Desired{}); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(filepath.Join(mapDir(r.p.BPFFS), "http_stats_v1")); err != nil {
		t.Fatal(err)
	}
	if err := r.dp.Direct(r.want); err != nil {
		t.Fatal(err)
	}
	r.run(r.dial(), oks(2))
	r.want2("with maps of its own", [6]uint64{2: 2}, 0)
}
