package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// desk is a forwarder's listeners in a host's namespace, and what they accept.
type desk struct {
	*Forwarder
	listeners []*net.TCPListener
	accepted  chan *net.TCPConn
}

// forward opens listeners as the forwarder does and puts them in force.
func (r *rig) forward(h *testutil.Host, cookie uint64) *desk {
	r.tb.Helper()
	k := &desk{accepted: make(chan *net.TCPConn, 64)}
	fds := []int{-1, -1}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	if err := h.NS().Do(func() error {
		for i, addr := range []string{"127.255.255.254:0", "[::1]:0"} {
			l, err := lc.Listen(context.Background(), "tcp", addr)
			if err != nil {
				return err
			}
			k.listeners = append(k.listeners, l.(*net.TCPListener))
			raw, err := l.(*net.TCPListener).SyscallConn()
			if err != nil {
				return err
			}
			raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		return nil
	}); err != nil {
		r.tb.Fatal(err)
	}
	var err error
	k.Forwarder, err = r.dp.Forward(Forwarding{NetnsCookie: cookie, NS: h.NS(), V4: fds[0], V6: fds[1]})
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, l := range k.listeners {
		go func() {
			for {
				c, err := l.AcceptTCP()
				if err != nil {
					return
				}
				k.accepted <- c
			}
		}()
	}
	r.tb.Cleanup(func() {
		k.hangUp()
		if r.dp != nil {
			k.Close()
		}
	})
	return k
}

func (k *desk) hangUp() {
	for _, l := range k.listeners {
		l.Close()
	}
}

// arrives returns the connection that a client's dial led to.
func (k *desk) arrives(tb testing.TB) *net.TCPConn {
	tb.Helper()
	select {
	case c := <-k.accepted:
		tb.Cleanup(func() { c.Close() })
		return c
	case <-time.After(5 * time.Second):
		tb.Fatal("nothing arrived at the forwarder")
		return nil
	}
}

func proxied(s *plan.Service) *plan.Service {
	s.HTTP = &lb.HTTP{Protocol: lb.AppHTTP}
	return s
}

// A connect to a proxied service arrives at the forwarder, which sees the VIP
// and the caller's task; without the forwarder it goes to an endpoint.
func TestForward(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	a.ServeName("a6", at(a.Addr6(), 8080))
	task := r.task(web, 7)
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{proxied(service(1, lb.TCP, at(a.Addr4(), 8080), at(a.Addr6(), 8080)))}
		d.Tasks = []*plan.Task{task}
	})
	vips := []netip.AddrPort{netip.AddrPortFrom(vip4(1), 80), netip.AddrPortFrom(vip6(1), 80)}
	direct := func(why string) {
		t.Helper()
		for i, want := range []string{"a", "a6"} {
			if ans, err := web.Ask(context.Background(), "tcp", vips[i].String()); err != nil || ans.Name != want {
				t.Errorf("%s: %q answers at %s (%v), want %s", why, ans.Name, vips[i], err, want)
			}
		}
	}
	direct("no forwarder")
	k := r.forward(web, task.NetnsCookie)
	for _, vip := range vips {
		c, err := web.Dial(context.Background(), "tcp", vip.String())
		if err != nil {
			t.Fatal(err)
		}
		s := k.arrives(t)
		if got := s.LocalAddr().(*net.TCPAddr).AddrPort(); got != vip {
			t.Errorf("accepted at %s, want %s", got, vip)
		}
		from := s.RemoteAddr().(*net.TCPAddr).AddrPort()
		if got := c.LocalAddr().(*net.TCPAddr).AddrPort(); from != got {
			t.Errorf("accepted from %s, want %s", from, got)
		}
		if id, ok := k.Caller(from, vip); id != task.ID || !ok {
			t.Errorf("the caller is task %d (%v), want %d", id, ok, task.ID)
		}
		if _, ok := k.Caller(from, vip); ok {
			t.Error("an admission is good for more than one question")
		}
		c.Close()
	}
	if err := k.Away(); err != nil {
		t.Fatal(err)
	}
	direct("away")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	direct("closed")
	k = r.forward(web, task.NetnsCookie)
	k.hangUp()
	direct("its listener is gone")
	for id := range r.dp.shared.heartbeats {
		r.dp.shared.heartbeats[id] = 1
	}
	k = r.forward(web, task.NetnsCookie)
	for _, seat := range k.seats {
		r.dp.shared.heartbeats[seat] = monotonic() - uint64(3*time.Second)
	}
	direct("its loop hangs")
}

// Whoever was not left to the forwarder by the connect hook does not get to it
// by dialling a VIP.
func TestForwardAdmitsOnlyTasks(t *testing.T) {
	r := newRig(t)
	web, a := r.w.Host("web"), r.w.Host("a")
	a.ServeName("a", at(a.Addr4(), 8080))
	task := r.task(web, 7)
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{proxied(service(1, lb.TCP, at(a.Addr4(), 8080)))}
		d.Tasks = []*plan.Task{task}
	})
	r.forward(web, task.NetnsCookie)
	web.ServeName("web itself", "0.0.0.0:80")
	var marked net.Conn
	err := web.NS().Do(func() (err error) {
		d := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, 0x636e6401) })
		}}
		marked, err = d.Dial("tcp", at(vip4(1), 80))
		return err
	})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		if marked != nil {
			marked.Close()
		}
		t.Errorf("a task that forges our mark gets %v, want ECONNREFUSED", err)
	}
}
