package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestRestartUnderLoad: whatever ends the daemon, no connection notices.
func TestRestartUnderLoad(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("orders", "", "a", "b"), service("cache", "", "a"))
	names := []string{"orders", "cache", "orders.prod", "cache.prod"}
	vips := func() (list []netip.Addr) {
		for _, name := range names {
			list = append(list, s.vip(s.web, s.dns.Host, name))
		}
		return list
	}
	before := vips()
	l := s.loaded(s.web, at(before[0], 80))
	for round, end := range []func(){
		func() { s.daemon.kill() }, func() { s.daemon.stop() }, func() { s.daemon.kill() },
	} {
		l.progress(s.node)
		end()
		l.progress(s.node) // nobody is there
		s.start()
		l.progress(s.node)
		if after := vips(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("round %d: VIPs are %v, were %v", round, after, before)
		}
	}
	// Another order in the catalog moves no VIP either, nor does a neighbour.
	s.catalog(service("about", "", "a") + service("cache", "", "a") + service("orders", "", "b", "a"))
	s.vip(s.web, s.dns.Host, "about")
	s.daemon.kill()
	s.start()
	if after := vips(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("VIPs are %v, were %v", after, before)
	}
	l.progress(s.node)
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d failures, first ones:\n%s", len(errs), strings.Join(errs[:min(len(errs), 10)], "\n"))
	}
	t.Logf("%d connections opened, %d pings on held ones", l.opened.Load(), l.pinged.Load())
	// The negative control: without what stays in the kernel this fails.
	s.daemon.stop()
	if out, code := s.cli("unload"); code != 0 {
		t.Fatalf("unload: exit %d\n%s", code, out)
	}
	if _, err := s.web.Ask(context.Background(), "tcp", at(before[0], 80)); err == nil {
		t.Error("the VIP still leads somewhere after unload")
	}
}

// TestDrainingSurvivesRestart: deadlines are points in time, not durations
// from the start; what is drained stays drained.
func TestDrainingSurvivesRestart(t *testing.T) {
	t.Parallel()
	const drain = "drain: {deadlineSeconds: 3, connections: terminate}"
	s := newShop(t, "a", "b", "c")
	s.begin(service("orders", drain, "a", "b", "c"))
	address := s.at80("orders")
	toB, toC := holdAt(t, s.web, address, "b"), holdAt(t, s.web, address, "c")
	if _, err := s.control().Drain(context.Background(), "prod/orders", s.endpoint("b")); err != nil {
		t.Fatal(err)
	}
	s.catalog(service("orders", drain, "a", "b")) // c is removed
	s.inState("prod/orders", s.endpoint("c"), "removed")
	before := s.endpoints("prod/orders")
	s.daemon.kill()
	if got := spread(s.web, "tcp", address, 6); got["a"] != 6 {
		t.Errorf("dead: %v", got)
	}
	s.start()
	after := s.endpoints("prod/orders")
	for name, c := range map[string]*held{"b": toB, "c": toC} {
		e, was := after[s.endpoint(name)], before[s.endpoint(name)]
		if e.State != was.State || !e.DrainDeadline.Equal(was.DrainDeadline) || e.DrainDeadline.IsZero() {
			t.Errorf("%s is %s until %s, was %s until %s", name, e.State, e.DrainDeadline, was.State, was.DrainDeadline)
		}
		if err := c.works(); err != nil && time.Now().Before(was.DrainDeadline) {
			t.Errorf("%s before its deadline: %s", name, err)
		}
	}
	for _, c := range []*held{toB, toC} {
		if err := c.ended(10 * time.Second); err != nil {
			t.Error(err)
		}
		if early := time.Until(before[s.endpoint(c.server)].DrainDeadline); early > 0 {
			t.Errorf("%s ended %s before its deadline", c.server, early)
		}
	}
	if got := spread(s.web, "tcp", address, 6); got["a"] != 6 {
		t.Errorf("later: %v", got)
	}
}

// TestSecondDaemonRefuses and says who holds the lock; the first is not
// disturbed.
func TestSecondDaemonRefuses(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	address := s.at80("orders")
	out, code := s.cli("run")
	if code != 1 || !strings.Contains(out, fmt.Sprintf("held by pid %d", s.daemon.cmd.Process.Pid)) {
		t.Errorf("exit %d\n%s", code, out)
	}
	out, code = s.cli("unload")
	if code != 1 || !strings.Contains(out, fmt.Sprintf("held by pid %d", s.daemon.cmd.Process.Pid)) {
		t.Errorf("unload beside a daemon: exit %d\n%s", code, out)
	}
	if got := spread(s.web, "tcp", address, 3); got["a"] != 3 {
		t.Errorf("after it: %v", got)
	}
	if st := s.status(); st.Verdict != "ok" {
		t.Errorf("status: %+v", st)
	}
}

// TestKilledWhileWriting: a daemon that is killed at any moment of its start
// or of a change can be started again, and the held connection goes on.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("orders", "", "a", "b"))
	vip := s.vip(s.web, s.dns.Host, "orders")
	c := hold(t, s.web, at(vip, 80))
	rounds := 20
	if testing.Short() || raceEnabled {
		rounds = 8
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		p := s.daemon
		if round%2 == 0 { // at its start
			p.kill()
			p = s.spawn()
		}
		wait, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(150))*time.Millisecond)
		for i := 0; wait.Err() == nil; i++ { // in a change
			others := ""
			for j := range 1 + (i+round)%7 {
				others += service(fmt.Sprintf("s%d-%d", j, i%3), "", "a", "b")
			}
			s.catalog(service("orders", "", "a", "b") + others)
			pause(wait, 12*time.Millisecond)
		}
		cancel()
		p.kill()
		if got := spread(s.web, "tcp", at(vip, 80), 2); got["a"]+got["b"] != 2 {
			t.Errorf("round %d: killed: %v", round, got)
		}
		s.start()
		if now := s.vip(s.web, s.dns.Host, "orders"); now != vip {
			t.Fatalf("round %d: VIP %s, was %s", round, now, vip)
		}
		if got := spread(s.web, "tcp", at(vip, 80), 2); got["a"]+got["b"] != 2 {
			t.Errorf("round %d: started: %v", round, got)
		}
	}
	if err := c.works(); err != nil {
		t.Errorf("the connection held through it all: %s", err)
	}
	// What was removed goes when it was seen without connections.
	s.eventually(10*time.Second, func() error {
		if st := s.status(); st.Verdict != "ok" {
			return fmt.Errorf("status: %+v", st.Problems)
		}
		return nil
	})
}
