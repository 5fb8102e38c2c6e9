package datapath

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// forwardRig is a client, task 7, of proxied service 1, whose endpoints on
// host a answer as "a" and, over IPv6, "a6". The client has a server of its
// own on the VIPs' port at every address.
func forwardRig(t *testing.T) (*rig, *testutil.Host, *plan.Task) {
	t.Helper()
	return forwardRigOver(t, newRig(t))
}

func forwardRigOver(t *testing.T, r *rig) (*rig, *testutil.Host, *plan.Task) {
	t.Helper()
	web, a := r.w.Host("web"), r.w.Host("a")
	web.ServeName("itself", "[::]:80")
	a.ServeName("a", at(a.Addr4(), 8080))
	a.ServeName("a6", at(a.Addr6(), 8080))
	task := r.task(web, 7)
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{proxied(service(1, lb.TCP, at(a.Addr4(), 8080), at(a.Addr6(), 8080)))}
		d.Tasks = []*plan.Task{task}
	})
	return r, web, task
}

// dial connects to a VIP, whose name the socket must bear.
func dial(t *testing.T, from *testutil.Host, vip netip.AddrPort) (*net.TCPConn, netip.AddrPort) {
	t.Helper()
	c, err := from.Dial(context.Background(), "tcp", vip.String())
	if err != nil {
		t.Fatalf("dial %s: %s", vip, err)
	}
	t.Cleanup(func() { c.Close() })
	if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != vip {
		t.Errorf("getpeername shows %s, want %s", got, vip)
	}
	return c.(*net.TCPConn), c.LocalAddr().(*net.TCPAddr).AddrPort()
}

// answer checks who answers at the VIPs of service 1.
func answer(t *testing.T, web *testutil.Host, why string, want ...string) {
	t.Helper()
	for i, vip := range dials() {
		if got := testutil.WhoAnswers(t, web, "tcp", vip.String()); got != want[i] {
			t.Errorf("%s: %q answers at %s, want %q", why, got, vip, want[i])
		}
	}
}

// A connect to a proxied service arrives at the forwarder, which sees the VIP
// and the caller's task; whenever it does not stand, the endpoint is reached.
func TestForward(t *testing.T) {
	r, web, task := forwardRig(t)
	next := r.w.Host("next")
	r.apply(func(d *plan.Desired) { d.Tasks = append(d.Tasks, r.task(next, 8)) })
	answer(t, web, "no forwarder", "a", "a6")
	k := r.forward(web, task.NetnsCookie)
	answer(t, next, "a forwarder elsewhere", "a", "a6")
	for _, vip := range dials() {
		c, from := dial(t, web, vip)
		s := k.arrives(t, from, vip)
		k.isFrom(t, s, task.ID)
		c.Write([]byte("request"))
		buf := make([]byte, 16)
		if n, err := s.Read(buf); string(buf[:n]) != "request" {
			t.Errorf("the forwarder reads %q (%v)", buf[:n], err)
		}
		c.Close()
	}
	r.waitIdle()
	r.noAdmissions()
	if got := r.dp.Endpoint(101); got.Opened != 2 {
		t.Errorf("endpoint 101 had %d connections, want the two without a forwarder", got.Opened)
	}

	k.beatAt(-3 * time.Second)
	answer(t, web, "its loop hangs", "a", "a6")
	for _, vip := range dials() {
		k.Beat()
		c, from := dial(t, web, vip)
		c.Close()
		k.isFrom(t, k.arrives(t, from, vip), task.ID)
	}
	k.beatAt(time.Hour)
	var waiting []netip.AddrPort
	for _, vip := range dials() {
		_, from := dial(t, web, vip)
		waiting = append(waiting, from)
	}
	if err := k.Away(); err != nil {
		t.Fatal(err)
	}
	answer(t, web, "away", "a", "a6")
	for i, vip := range dials() {
		k.isFrom(t, k.arrives(t, waiting[i], vip), task.ID) // came before
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	answer(t, web, "closed", "a", "a6")

	k = r.forward(web, task.NetnsCookie)
	k.hangUp()
	answer(t, web, "its listeners are closed", "a", "a6")
	got, err := r.dp.Outcomes()
	if err != nil || got["forwarded"] != 6 || got["forwarder_away"] != 12 {
		t.Errorf("outcomes %v (%v), want 6 forwarded, 12 away", got, err)
	}
}

// A listener goes with the process that holds it, however that ends.
func TestForwardKilled(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	holder := web.Command(t.Context(), "sleep", "1000")
	for _, l := range []*net.TCPListener{k.v4, k.v6} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		holder.ExtraFiles = append(holder.ExtraFiles, f)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range holder.ExtraFiles {
		f.Close()
	}
	k.hangUp()
	for _, vip := range dials() {
		dial(t, web, vip) // the holder's backlog takes it
	}
	holder.Process.Signal(unix.SIGKILL)
	holder.Wait()
	answer(t, web, "killed", "a", "a6")
	r.waitIdle() // what was in the backlog was reset
}

// A forwarder that has a successor takes nothing from it when it ends.
func TestForwardReplaced(t *testing.T) {
	r, web, task := forwardRig(t)
	first := r.forward(web, task.NetnsCookie)
	second := r.forward(web, task.NetnsCookie)
	if err := first.Away(); err != nil {
		t.Fatal(err)
	}
	for _, vip := range dials() {
		// The program that was attached first has the first word.
		_, from := dial(t, web, vip)
		first.isFrom(t, first.arrives(t, from, vip), task.ID)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for _, vip := range dials() {
		_, from := dial(t, web, vip)
		second.isFrom(t, second.arrives(t, from, vip), task.ID)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	answer(t, web, "both closed", "a", "a6")
	err := web.Do(func() error {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
		for _, route := range routes {
			if route.Dst != nil && testVIP6.Contains(addrOfIP(route.Dst.IP)) {
				t.Errorf("left: %s", route)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func addrOfIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// Where IPv6 is off, IPv4 is forwarded all the same.
func TestForwardWithoutIPv6(t *testing.T) {
	r, web, task := forwardRig(t)
	k := listenDesk(web)
	if err := web.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0) }); err != nil {
		t.Fatal(err)
	}
	r.stand(k, task.NetnsCookie, web.NS())
	vip := dials()[0]
	_, from := dial(t, web, vip)
	k.isFrom(t, k.arrives(t, from, vip), task.ID)
	if got := testutil.WhoAnswers(t, web, "tcp", dials()[1].String()); got != "a6" {
		t.Errorf("%q answers over IPv6, want a6", got)
	}
}

// What somebody else takes away is put back, and what nobody knows of goes.
func TestForwardResync(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	stranger := uint64(1 << 40)
	for name, harm := range map[string]func() error{
		"entry":   func() error { return r.dp.objs.ForwardersV1.Delete(&task.NetnsCookie) },
		"seat":    func() error { e := k.entry; e.Seat4 = 77; return r.dp.objs.ForwardersV1.Put(&task.NetnsCookie, &e) },
		"foreign": func() error { return r.dp.objs.ForwardersV1.Put(&stranger, &connectForwarder{Netns: stranger}) },
		"program": func() error { return k.lookup.Detach() },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		if n, err := r.dp.Resync(r.want); n != 1 || err != nil {
			t.Errorf("%s harmed: repaired %d (%v), want 1", name, n, err)
		}
		for _, vip := range dials() {
			_, from := dial(t, web, vip)
			k.isFrom(t, k.arrives(t, from, vip), task.ID)
		}
		if n, err := r.dp.Resync(r.want); n != 0 || err != nil {
			t.Errorf("%s repaired: repaired %d more (%v)", name, n, err)
		}
	}
}

// A new daemon knows nothing of its predecessor's listeners, whose seats it
// gives to others.
func TestForwardRestart(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	_, from := dial(t, web, dials()[0])
	k.lookup.Close() // as the process's end would
	k.hangUp()
	r.close()
	answer(t, web, "no daemon", "a", "a6")
	r.open()
	r.noAdmissions()
	if _, ok := (&Forwarder{d: r.dp, entry: k.entry}).Caller(from, dials()[0]); ok {
		t.Error("an admission of an earlier daemon stands")
	}
	answer(t, web, "new daemon", "a", "a6")
	k = r.forward(web, task.NetnsCookie)
	_, from = dial(t, web, dials()[0])
	k.isFrom(t, k.arrives(t, from, dials()[0]), task.ID)
}
