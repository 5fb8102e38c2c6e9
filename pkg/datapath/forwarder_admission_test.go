package datapath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// outsider is who talks to an address without being a client, in a namespace
// where others are: with connectd's mark, which is no credential.
func outsider(t *testing.T, in *testutil.Host, network string, to netip.AddrPort) (string, error) {
	t.Helper()
	c, err := in.NS().DialMarked(context.Background(), network, to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	ans, err := testutil.AskConn(c)
	return ans.Name, err
}

// Whoever the connect hook did not leave to the forwarder does not get there
// by dialling a VIP, nor to whatever the task listens with on that port.
func TestForwardRefuses(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	for _, vip := range dials() {
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []uint16{80, 81} {
				to := netip.AddrPortFrom(vip.Addr(), port)
				if got, err := outsider(t, web, network, to); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%q answers an outsider over %s at %s (%v), want ECONNREFUSED", got, network, to, err)
				}
			}
		}
	}
	// Not its business: any other address.
	for _, to := range []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("[::1]:80")} {
		for _, network := range []string{"tcp", "udp"} {
			if got, err := outsider(t, web, network, to); got != "itself" {
				t.Errorf("%q answers over %s at %s (%v), want itself", got, network, to, err)
			}
		}
	}
	// The listener's own address leads to it, and to no task.
	own := k.v4.Addr().(*net.TCPAddr).AddrPort()
	_, from := dial(t, web, own)
	k.isFrom(t, k.arrives(t, from, own), 0)
	// Nor is a client admitted out of its scope.
	r.apply(func(d *plan.Desired) {
		out := *task
		out.Scope[0] = 2
		d.Tasks = []*plan.Task{&out}
	})
	for _, vip := range dials() {
		if _, err := web.Dial(context.Background(), "tcp", vip.String()); !errors.Is(err, unix.EPERM) {
			t.Errorf("dial %s: %v, want EPERM", vip, err)
		}
	}
	if got, err := r.dp.Outcomes(); err != nil || got["forwarded"] != 0 {
		t.Errorf("outcomes %v (%v), want none forwarded", got, err)
	}
	r.waitIdle()
	r.noAdmissions()

	// With the hooks detached nobody is admitted, and with the forwarder closed
	// the VIP is what it is without connectd: the namespace's own address.
	if _, err := Unload(r.p.BPFFS); err != nil {
		t.Fatal(err)
	}
	answer(t, web, "detached", "", "")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if got := testutil.WhoAnswers(t, web, "tcp", dials()[0].String()); got != "itself" {
		t.Errorf("%q answers, want the client itself", got)
	}
}

// Our DNS sockets may lie in the VIP range, and are left alone there.
func TestForwardSparesDNSSockets(t *testing.T) {
	r := newRigWith(t, func(p *Params) { p.VIP4 = netip.MustParsePrefix("127.255.0.0/16") })
	web := r.w.Host("web")
	task := r.task(web, 7)
	r.apply(func(d *plan.Desired) { d.Tasks = []*plan.Task{task} })
	r.forward(web, task.NetnsCookie)
	web.ServeName("itself", "0.0.0.0:80")
	dns := web.ServeName("dns", "127.255.255.254:0")
	for _, network := range []string{"tcp", "udp"} {
		if got, err := outsider(t, web, network, dns); got != "dns" {
			t.Errorf("%q answers over %s at %s (%v), want dns", got, network, dns, err)
		}
		to := netip.MustParseAddrPort("127.255.0.1:80")
		if got, err := outsider(t, web, network, to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%q answers over %s at %s (%v), want ECONNREFUSED", got, network, to, err)
		}
	}
}

// node makes a host the node's own namespace: its forwarder's handle is one of
// the namespace that the process runs in.
func (r *rig) node(h *testutil.Host, cookie uint64) *desk {
	r.tb.Helper()
	k := listenDesk(h)
	err := h.Do(func() error {
		own, err := netns.Open(h.Path())
		if err != nil {
			return err
		}
		defer own.Close()
		return k.open(r.dp, cookie, own)
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() {
		if err := h.Do(k.Close); err != nil {
			r.tb.Error(err)
		}
	})
	return k
}

// In the node's namespace a client that is known by its cgroup is served. For
// every other process the VIP is what it was before, even from the port of a
// client that came and went and was never accepted.
func TestForwardInNodeNamespace(t *testing.T) {
	r, web, _ := forwardRig(t)
	group := testutil.NewCgroup(t)
	cookie, err := r.dp.NetnsCookie(web.NS())
	if err != nil {
		t.Fatal(err)
	}
	task := &plan.Task{Task: lb.Task{Name: "cron", CgroupID: group.ID(), CgroupLevel: 1}, ID: 9}
	task.Scope[0] = 1
	r.apply(func(d *plan.Desired) { d.Tasks = []*plan.Task{task} })
	k := r.node(web, cookie)
	answer(t, web, "outside the cgroup", "itself", "itself")

	group.Add(os.Getpid())
	var gone []netip.AddrPort
	for _, vip := range dials() {
		c, from := dial(t, web, vip)
		k.isFrom(t, k.arrives(t, from, vip), task.ID)
		c.Close()
		c, from = dial(t, web, vip)
		c.SetLinger(0) // its port is free at once
		c.Close()
		gone = append(gone, from)
	}
	r.waitIdle()
	leave, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(leave+"/cgroup.procs", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	for i, vip := range dials() {
		err := web.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(gone[i]), Timeout: 5 * time.Second}
			d.SetMultipathTCP(false)
			c, err := d.Dial("tcp", vip.String())
			if err != nil {
				return err
			}
			defer c.Close()
			if ans, err := testutil.AskConn(c); ans.Name != "itself" {
				t.Errorf("%q answers an outsider at a client's port (%v), want itself", ans.Name, err)
			}
			return nil
		})
		if err != nil {
			t.Errorf("outsider from %s: %s", gone[i], err)
		}
		// The client's own is still in the queue, and known.
		k.isFrom(t, k.arrives(t, gone[i], vip), task.ID)
	}
	r.noAdmissions()
}

// However a connection ends, before it is accepted or after, and whoever ends
// it, nothing of it stays.
func TestForwardLeavesNothing(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	finish := func(c *net.TCPConn) { c.Write([]byte("GET")); c.Close() }
	reset := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	for name, end := range map[string]func(vip, from netip.AddrPort, c *net.TCPConn){
		"client closes before accept": func(vip, from netip.AddrPort, c *net.TCPConn) {
			finish(c)
			s := k.arrives(t, from, vip)
			k.isFrom(t, s, task.ID)
			if n, err := s.Read(make([]byte, 8)); n != 3 {
				t.Errorf("its request is lost: read %d bytes (%v)", n, err)
			}
			s.Close()
		},
		"client resets before accept": func(vip, from netip.AddrPort, c *net.TCPConn) {
			reset(c)
			k.isFrom(t, k.arrives(t, from, vip), task.ID)
		},
		"client closes after accept": func(vip, from netip.AddrPort, c *net.TCPConn) {
			k.isFrom(t, k.arrives(t, from, vip), task.ID)
			finish(c)
		},
		"forwarder closes": func(vip, from netip.AddrPort, c *net.TCPConn) {
			s := k.arrives(t, from, vip)
			k.isFrom(t, s, task.ID)
			s.Close()
			c.Close()
		},
		"forwarder resets": func(vip, from netip.AddrPort, c *net.TCPConn) {
			s := k.arrives(t, from, vip)
			k.isFrom(t, s, task.ID)
			reset(s)
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, vip := range dials() {
				c, from := dial(t, web, vip)
				end(vip, from, c)
			}
			r.waitIdle()
			r.noAdmissions()
		})
	}
	for _, id := range []lb.EndpointID{0, 101, 102} {
		if got := r.dp.Endpoint(id); got != (EndpointCounters{}) {
			t.Errorf("endpoint %d: %+v, want nothing counted", id, got)
		}
	}
	if got := r.dp.Service(1); got.Failures[connectFailureFAILURE_RESET] != 0 || got.ConnectTime.Sum != 0 {
		t.Errorf("service: %+v, want nothing counted", got)
	}
}

// A forwarded connection belongs to no endpoint: it is neither ended nor
// counted with one. When nobody told its end, the sweep finds it.
func TestForwardedIsNoEndpoints(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	in := func(uint64) (*netns.Handle, bool) { return web.NS(), true }
	vip := dials()[0]
	c, from := dial(t, web, vip)
	s := k.arrives(t, from, vip)
	k.isFrom(t, s, task.ID)
	if live, _, err := r.dp.LiveBytes(100, in); err != nil || len(live) != 0 {
		t.Errorf("live bytes %v (%v), want none", live, err)
	}
	if got, err := r.dp.Terminate([]lb.EndpointID{0, 101, 102}, in); err != nil || got != (Terminated{}) {
		t.Errorf("terminated %+v (%v), want nothing", got, err)
	}
	c.Write([]byte("on"))
	if n, err := s.Read(make([]byte, 2)); n != 2 {
		t.Errorf("the connection has ended: %v", err)
	}

	if err := r.detach("sock_ops"); err != nil {
		t.Fatal(err)
	}
	c.SetLinger(0)
	c.Close()
	if err := r.dp.Publish(); err != nil {
		t.Fatal(err)
	}
	for e, err := range r.dp.connections() {
		if err != nil {
			t.Fatal(err)
		}
		e.value.StartedNs = monotonic() - uint64(2*closingGrace)
		if err := r.dp.objs.ConnectionsV1.Put(&e.key, &e.value); err != nil {
			t.Fatal(err)
		}
	}
	swept := 0
	for range sweepShare {
		n, err := r.dp.Sweep(in)
		if err != nil {
			t.Fatal(err)
		}
		swept += n
	}
	if swept != 1 {
		t.Errorf("swept %d, want 1", swept)
	}
	r.waitIdle()
}

// A client that gives up while the backlog is full was never there, and its
// waiting says nothing about any endpoint.
func TestForwardGivesUp(t *testing.T) {
	r, web, task := forwardRig(t)
	k := r.forward(web, task.NetnsCookie)
	if err := withFD(k.v4, func(fd int) error { return unix.Listen(fd, 0) }); err != nil {
		t.Fatal(err)
	}
	vip := dials()[0]
	_, first := dial(t, web, vip) // is all that a backlog of 0 holds
	var fd int
	err := web.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: vip.Addr().As4(), Port: 80})
	})
	if !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("connect to a full backlog: %v, want EINPROGRESS", err)
	}
	testutil.Eventually(t, 30*time.Second, func() error {
		for e, err := range r.dp.connections() {
			if err != nil || e.value.Flags&connectionStruck != 0 {
				return err
			}
		}
		return errors.New("no SYN was sent again")
	})
	unix.Close(fd)
	k.isFrom(t, k.arrives(t, first, vip), task.ID)
	r.noAdmissions()
	for e, err := range all[connectTaskEndpoint, uint64](r.dp.objs.StrikesV1) {
		t.Errorf("strikes of task %d against endpoint %d (%v), want none", e.key.Task, e.key.Endpoint, err)
	}
}

const connectionStruck = 8 // CONNECTION_STRUCK in bpf/lib/types.h
