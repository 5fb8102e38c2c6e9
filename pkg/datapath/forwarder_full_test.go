package datapath

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

// A task that holds its share goes to endpoints, for the forwarder takes
// nobody who is not tracked. The same when the map is full; only an MPTCP
// connect finds that out when it is on its way already, and is let in.
func TestForwardWithoutRoom(t *testing.T) {
	r, web, task := forwardRigOver(t, newRigWith(t, func(p *Params) { p.MaxConnections = 8 }))
	k := r.forward(web, task.NetnsCookie)
	vip := dials()[0]
	var held []*net.TCPConn
	for range 2 { // a quarter of 8
		c, from := dial(t, web, vip)
		k.isFrom(t, k.arrives(t, from, vip), task.ID)
		held = append(held, c)
	}
	dialMPTCP := func() (c *oddConn, ok bool) {
		c, err := dialOdd(t, web, oddSocket{family: unix.AF_INET, proto: unix.IPPROTO_MPTCP,
			to: &unix.SockaddrInet4{Addr: vip.Addr().As4(), Port: 80}})
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			t.Log("a kernel without MPTCP")
			return nil, false
		}
		if err != nil {
			t.Fatal(err)
		}
		return c, true
	}
	untracked := uint64(1)
	if got := testutil.WhoAnswers(t, web, "tcp", vip.String()); got != "a" {
		t.Errorf("over its quota %q answers, want the endpoint", got)
	}
	if c, ok := dialMPTCP(); ok {
		untracked++
		if got := readName(t, c); got != "a" {
			t.Errorf("multipath, over its quota: %q answers, want the endpoint", got)
		}
	}
	got, err := r.dp.Outcomes()
	if err != nil || got["forwarded"] != 2 || got["untracked"] != untracked {
		t.Errorf("outcomes %v (%v), want 2 forwarded, %d untracked", got, err, untracked)
	}

	for _, c := range held {
		c.SetLinger(0)
		c.Close()
	}
	r.waitIdle()
	for id := range uint64(8) {
		cookie := 1<<60 + id
		if err := r.dp.objs.ConnectionsV1.Put(&cookie, &connectConnection{Protocol: uint8(lb.TCP), Flags: connectionArmed}); err != nil {
			t.Fatal(err)
		}
	}
	if got := testutil.WhoAnswers(t, web, "tcp", vip.String()); got != "a" {
		t.Errorf("map full: %q answers, want the endpoint", got)
	}
	if c, ok := dialMPTCP(); ok {
		k.isFrom(t, k.arrives(t, c.local, vip), task.ID)
	}
	r.noAdmissions()
}
