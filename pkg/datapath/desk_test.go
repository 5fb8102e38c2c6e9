package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// desk is a forwarder's listeners in a host's namespace. Nobody accepts until
// a test does.
type desk struct {
	*Forwarder
	v4, v6 *net.TCPListener
}

// forward puts a desk in force.
func (r *rig) forward(h *testutil.Host, cookie uint64) *desk {
	r.tb.Helper()
	k := listenDesk(h)
	r.stand(k, cookie, h.NS())
	return k
}

// listenDesk opens listeners as the forwarder does.
func listenDesk(h *testutil.Host) *desk {
	return &desk{
		v4: h.Listen("tcp4", "127.255.255.254:0").(*net.TCPListener),
		v6: h.Listen("tcp6", "[::1]:0").(*net.TCPListener),
	}
}

func (r *rig) stand(k *desk, cookie uint64, ns *netns.Handle) {
	r.tb.Helper()
	if err := k.open(r.dp, cookie, ns); err != nil {
		r.tb.Fatal(err)
	}
	dp := r.dp
	r.tb.Cleanup(func() {
		if r.dp == dp { // else its maps are closed
			k.Close()
		}
	})
}

// open leaves a heartbeat of a time to come: a test on an emulated machine may
// take longer than a loop may hang.
func (k *desk) open(dp *Datapath, cookie uint64, ns *netns.Handle) error {
	return withFD(k.v4, func(v4 int) error {
		return withFD(k.v6, func(v6 int) (err error) {
			k.Forwarder, err = dp.Forward(Forwarding{NetnsCookie: cookie, NS: ns, V4: v4, V6: v6})
			if err == nil {
				k.beatAt(time.Hour)
			}
			return err
		})
	})
}

// beatAt sets the heartbeat to a time from now.
func (k *desk) beatAt(d time.Duration) {
	for _, seat := range k.seats {
		atomic.StoreUint64(&k.d.seats.heartbeats[seat], monotonic()+uint64(d))
	}
}

// withFD lends a listener's descriptor. File would make it block, and deadlines
// go unheard.
func withFD(l *net.TCPListener, fn func(fd int) error) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// hangUp closes the listeners.
func (k *desk) hangUp() {
	k.v4.Close()
	k.v6.Close()
}

// arrives accepts the connection that was made to a VIP from an address, and
// checks what the forwarder sees of it.
func (k *desk) arrives(tb testing.TB, from, vip netip.AddrPort) *net.TCPConn {
	tb.Helper()
	l := k.v4
	if vip.Addr().Is6() {
		l = k.v6
	}
	l.SetDeadline(time.Now().Add(30 * time.Second))
	c, err := l.AcceptTCP()
	if err != nil {
		tb.Fatalf("accept %s from %s: %s", vip, from, err)
	}
	tb.Cleanup(func() { c.Close() })
	if got := c.LocalAddr().(*net.TCPAddr).AddrPort(); got != vip {
		tb.Errorf("accepted at %s, want %s", got, vip)
	}
	if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != from {
		tb.Errorf("accepted from %s, want %s", got, from)
	}
	return c
}

// isFrom checks who the forwarder believes to have called.
func (k *desk) isFrom(tb testing.TB, c *net.TCPConn, want lb.TaskID) {
	tb.Helper()
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	if id, ok := k.Caller(remote, local); id != want || ok != (want != 0) {
		tb.Errorf("the caller of %s is task %d (%v), want %d", local, id, ok, want)
	}
	if _, ok := k.Caller(remote, local); ok {
		tb.Error("an admission is good for more than one question")
	}
}

// noAdmissions waits until nobody is on the way to the forwarder.
func (r *rig) noAdmissions() {
	r.tb.Helper()
	testutil.Eventually(r.tb, 30*time.Second, func() error {
		for e, err := range all[connectAdmissionKey, connectAdmission](r.dp.objs.AdmissionsV1) {
			if err != nil {
				return err
			}
			return fmt.Errorf("still admitted: task %d at %s", e.value.Task, decodeAddrPort(e.key.Vip, e.key.VipPort))
		}
		return nil
	})
}

// proxied has a service served by the forwarder.
func proxied(s *plan.Service) *plan.Service {
	s.HTTP = &lb.HTTP{Protocol: lb.AppHTTP}
	return s
}

// dials are the VIPs of service 1.
func dials() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(vip4(1), 80), netip.AddrPortFrom(vip6(1), 80)}
}
