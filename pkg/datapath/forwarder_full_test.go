package datapath

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"connectd/pkg/plan"
	"connectd/pkg/testutil"
)

// smallForwardRig is forwardRig with room for few connections: a task may have
// two.
func smallForwardRig(t *testing.T) (*rig, *testutil.Host, *desk, *plan.Task) {
	t.Helper()
	r, web, task := forwardRig(t)
	r.close()
	if _, err := Unload(r.p.BPFFS); err != nil {
		t.Fatal(err)
	}
	r.p.MaxConnections = 8
	r.open()
	want := r.want
	r.want = &plan.Desired{}
	r.apply(func(d *plan.Desired) { *d = *want })
	return r, web, r.forward(web, task.NetnsCookie), task
}

// A task that holds its share goes to endpoints, for the forwarder takes
// nobody who is not tracked.
func TestForwardOverQuota(t *testing.T) {
	for name, proto := range map[string]int{"plain": 0, "multipath": unix.IPPROTO_MPTCP} {
		t.Run(name, func(t *testing.T) {
			r, web, k, task := smallForwardRig(t)
			vip := dials()[0]
			for range 2 {
				_, from := dial(t, web, vip)
				k.isFrom(t, k.arrives(t, from, vip), task.ID)
			}
			if got := askOdd(t, web, proto); got != "a" {
				t.Errorf("over its quota %q answers, want the endpoint", got)
			}
			got, err := r.dp.Outcomes()
			if err != nil || got["forwarded"] != 2 || got["untracked"] != 1 {
				t.Errorf("outcomes %v (%v), want 2 forwarded, 1 untracked", got, err)
			}
		})
	}
}

// The same when the map is full. An MPTCP connect finds that out when it is on
// its way already, and is let in without being tracked.
func TestForwardMapFull(t *testing.T) {
	r, web, k, task := smallForwardRig(t)
	for id := range uint64(8) {
		cookie := 1<<60 + id
		if err := r.dp.objs.ConnectionsV1.Put(&cookie, &connectConnection{Protocol: 6, Flags: connectionArmed}); err != nil {
			t.Fatal(err)
		}
	}
	if got := askOdd(t, web, 0); got != "a" {
		t.Errorf("%q answers, want the endpoint", got)
	}
	vip := dials()[0]
	_, local, _, err := dialOdd(t, web, oddSocket{family: unix.AF_INET, proto: unix.IPPROTO_MPTCP,
		to: &unix.SockaddrInet4{Addr: vip.Addr().As4(), Port: 80}})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return // a kernel without MPTCP
	}
	if err != nil {
		t.Fatal(err)
	}
	k.isFrom(t, k.arrives(t, local, vip), task.ID)
	r.noAdmissions()
}

// askOdd asks at service 1 with a socket of a protocol and returns who answers.
func askOdd(t *testing.T, from *testutil.Host, proto int) string {
	t.Helper()
	fd, _, _, err := dialOdd(t, from, oddSocket{family: unix.AF_INET, proto: proto,
		to: &unix.SockaddrInet4{Addr: vip4(1).As4(), Port: 80}})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skip("a kernel without MPTCP")
	}
	if err != nil {
		t.Fatal(err)
	}
	return readName(t, fd)
}
