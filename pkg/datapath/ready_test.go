package datapath

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// readyRig is a client, task 7, that may use no namespace with a service, and
// a stranger. Both have servers of their own on the port of every address.
func readyRig(t *testing.T) (r *rig, web, stranger *testutil.Host, task *plan.Task, ready netip.AddrPort) {
	t.Helper()
	r = newRig(t)
	web, stranger = r.w.Host("web"), r.w.Host("stranger")
	web.ServeName("itself", "[::]:80")
	stranger.ServeName("itself", "[::]:80")
	task = r.task(web, 7)
	task.Scope[0] = 2
	ready = netip.AddrPortFrom(plan.ReadyVIP(testVIP4), 80)
	r.apply(func(d *plan.Desired) {
		d.Services = []*plan.Service{proxied(service(1, lb.TCP))}
		d.Tasks = []*plan.Task{task}
		d.Ready = plan.Frontend{Address: ready, Protocol: lb.TCP}
	})
	return r, web, stranger, task, ready
}

// refused checks that a connect is refused before it leaves.
func refused(t *testing.T, from *testutil.Host, to netip.AddrPort, why string) {
	t.Helper()
	c, err := from.Dial(context.Background(), "tcp", to.String())
	if err == nil {
		ans, _ := testutil.AskConn(c)
		c.Close()
		t.Errorf("%s: %q answers at %s", why, ans.Name, to)
	} else if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: dial %s: %v, want ECONNREFUSED", why, to, err)
	}
}

// Every task, whatever its scope, gets to the forwarder at the address that
// tells whether it is ready, and is refused while there is none: nobody stands
// in for it, the task's own servers least of all.
func TestReadyFrontend(t *testing.T) {
	r, web, stranger, task, ready := readyRig(t)
	refused(t, web, ready, "no forwarder")
	k := r.forward(web, task.NetnsCookie)
	for range 2 {
		c, from := dial(t, web, ready)
		taken := k.arrives(t, from, ready)
		k.isFrom(t, taken, task.ID)
		c.Close()
		taken.Close()
	}
	// A service of another namespace is out of its scope all the same.
	if _, err := web.Dial(context.Background(), "tcp", dials()[0].String()); !errors.Is(err, unix.EPERM) {
		t.Errorf("dial %s: %v, want EPERM", dials()[0], err)
	}
	refused(t, web, netip.AddrPortFrom(ready.Addr(), 81), "another port")
	// getaddrinfo makes such to sort addresses.
	if c, err := web.Dial(context.Background(), "udp", ready.String()); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if got := testutil.WhoAnswers(t, stranger, "tcp", ready.String()); got != "itself" {
		t.Errorf("%q answers a stranger, want its own server", got)
	}
	k.beatAt(-3 * time.Second)
	refused(t, web, ready, "its loop hangs")
	k.beatAt(time.Hour)
	if err := k.Away(); err != nil {
		t.Fatal(err)
	}
	refused(t, web, ready, "away")
	got, err := r.dp.Outcomes()
	if err != nil || got["forwarded"] != 2 || got["forwarder_away"]+got["no_endpoint"] != 0 {
		t.Errorf("outcomes %v (%v), want 2 forwarded and no want of a forwarder or an endpoint", got, err)
	}
	r.waitIdle()
	r.noAdmissions()

	// Without the frontend, and without the hooks, it is an address like others.
	key, _ := readyFrontend(r.want.Ready)
	if err := r.dp.objs.FrontendsV1.Delete(&key); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = r.forward(web, task.NetnsCookie)
	refused(t, web, ready, "no frontend")
	if n, err := r.dp.Resync(r.want); n != 1 || err != nil {
		t.Errorf("repaired %d (%v), want the frontend", n, err)
	}
	_, from := dial(t, web, ready)
	k.arrives(t, from, ready)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Unload(r.p.BPFFS); err != nil {
		t.Fatal(err)
	}
	if got := testutil.WhoAnswers(t, web, "tcp", ready.String()); got != "itself" {
		t.Errorf("without connectd %q answers, want the task's own server", got)
	}
}

// The refusal outlives the daemon, and its successor's first plan changes
// nothing about it.
func TestReadyFrontendRestart(t *testing.T) {
	r, web, _, task, ready := readyRig(t)
	k := r.forward(web, task.NetnsCookie)
	k.lookup.Close() // as the process's end would
	k.hangUp()
	r.close()
	refused(t, web, ready, "no daemon")
	r.open()
	want := r.want
	r.want = &plan.Desired{}
	r.apply(func(d *plan.Desired) { *d = *want })
	if n, err := r.dp.Resync(r.want); n != 0 || err != nil {
		t.Errorf("repaired %d (%v) after a start", n, err)
	}
	refused(t, web, ready, "new daemon without a forwarder")
	k = r.forward(web, task.NetnsCookie)
	_, from := dial(t, web, ready)
	k.isFrom(t, k.arrives(t, from, ready), task.ID)
}
