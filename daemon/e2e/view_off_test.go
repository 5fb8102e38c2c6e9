package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/control"
)

// back checks that a client is as if connectd had never been there.
func (s *shop) back(vip netip.Addr, hosts, was string) {
	s.Helper()
	if got, err := lookup(s.web, s.dns.Host, "orders"); err == nil {
		s.Errorf("off: orders resolves to %s", got)
	}
	if got, err := lookup(s.web, s.dns.Host, "outside.example"); err != nil || got != upstreamAnswer {
		s.Errorf("off: the own resolver says %s, %v", got, err)
	}
	if _, err := s.web.Dial(context.Background(), "tcp", at(vip, 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		s.Errorf("off: the VIP gives %v, want what loopback gives", err)
	}
	if b, err := os.ReadFile(hosts); err != nil || string(b) != was {
		s.Errorf("off: the hosts file is %q, %v", b, err)
	}
}

// TestOff: off under load loses nothing of what goes on, puts everything back,
// is shown, and outlives a restart; on brings everything back.
func TestOff(t *testing.T) {
	t.Parallel()
	const own = "127.0.0.1 localhost\n"
	s := newShop(t, "a")
	s.clients = nil
	hosts := s.web.EtcFile("hosts", own)
	s.join(s.web, "prod", "hostsFile: "+hosts)
	w := s.w.Host("w")
	s.servers["w"] = w
	startWeb(w, "w")
	s.begin(service("orders", "", "a"), service("shop", "appProtocol: http\n"+patient, "w"))
	vip := s.vip(s.web, s.dns.Host, "orders")
	inHosts := func() error {
		if b, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(b), vip.String()) {
			return fmt.Errorf("the hosts file is %q, %v", b, err)
		}
		return nil
	}
	s.eventually(5*time.Second, inHosts)

	// Connections that go on, and programs that do as they should: who resolves
	// anew before it connects, and whose requests go over kept connections.
	held := hold(t, s.web, at(vip, 80))
	pings, stopPings := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			select {
			case <-stopPings:
				pings <- nil
				return
			default:
			}
			if err := held.works(); err != nil {
				pings <- err
				return
			}
		}
	}()
	resolving := s.resolveAndAsk("orders")
	requests := s.requesting(s.web, s.at80("shop"), 4, true)
	resolving.progress(s.node)
	requests.progress(s.node)

	out, code := s.cli("off")
	if code != 0 || !strings.Contains(out, "OFF") || !strings.Contains(out, "1 task ") {
		t.Fatalf("off: exit %d\n%s", code, out)
	}
	if errs := resolving.stop(); len(errs) > 0 {
		t.Errorf("%d of who resolves before it connects failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	// The VIP is gone for those who keep it, a TTL and more after its name.
	for _, err := range requests.stop() {
		if !strings.Contains(err, "connect: ") || !strings.Contains(err, syscall.ECONNREFUSED.Error()) {
			t.Errorf("a request failed: %s", err)
		}
	}
	t.Logf("%d connections after a lookup, %d requests, %d sent once more", resolving.opened.Load(), requests.done.Load(), requests.retried.Load())
	s.back(vip, hosts, own)
	if got := peer(t, held); got != netip.AddrPortFrom(vip, 80) {
		t.Errorf("off: the peer of what goes on is %s", got)
	}
	if list := s.listed(control.ConnectionFilter{Task: "web"}, 1); list[0].Name != "orders" || list[0].Endpoint != s.endpoint("a") {
		t.Errorf("off: %+v", list[0])
	}
	shown := func() {
		t.Helper()
		st := s.status()
		if st.Verdict != control.VerdictDegraded || st.Off.IsZero() || len(st.Problems) != 1 || st.Problems[0].Name != "off" {
			t.Errorf("status: %s %+v", st.Verdict, st.Problems)
		}
		if n := s.metric("connectd_off"); n != 1 {
			t.Errorf("connectd_off is %v", n)
		}
		if out, _ := s.cli("doctor"); !strings.Contains(out, "warn  brake") {
			t.Errorf("doctor:\n%s", out)
		}
		tasks, err := s.control().Tasks(context.Background())
		if err != nil || len(tasks) != 1 || tasks[0].Attached || len(tasks[0].Problems) != 1 || !strings.Contains(tasks[0].Problems[0], "off") {
			t.Errorf("tasks: %+v, %v", tasks, err)
		}
		if !s.daemon.logged("OFF") {
			t.Error("nothing in the log")
		}
	}
	shown()
	if out, code := s.cli("off"); code != 0 {
		t.Errorf("off once more: exit %d\n%s", code, out)
	}
	for _, end := range []func(){func() { s.daemon.stop() }, func() { s.daemon.kill() }} {
		end()
		s.start()
		s.back(vip, hosts, own)
		shown()
	}

	out, code = s.cli("on")
	if code != 0 || !strings.Contains(out, "serves 1 task") {
		t.Fatalf("on: exit %d\n%s", code, out)
	}
	if now := s.vip(s.web, s.dns.Host, "orders"); now != vip {
		t.Errorf("on: VIP %s, was %s", now, vip)
	}
	if got := spread(s.web, "tcp", at(vip, 80), 3); got["a"] != 3 {
		t.Errorf("on: %v", got)
	}
	if n := s.metric("connectd_off"); n != 0 {
		t.Errorf("on: connectd_off is %v", n)
	}
	requests = s.requesting(s.web, s.at80("shop"), 2, true)
	requests.progress(s.node)
	if errs := requests.stop(); len(errs) > 0 {
		t.Errorf("on: %d requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	s.eventually(5*time.Second, inHosts)
	if st := s.status(); st.Verdict != control.VerdictOK {
		t.Errorf("on: %+v", st.Problems)
	}
	close(stopPings)
	if err := <-pings; err != nil {
		t.Errorf("the connection held through it all: %s", err)
	}
	s.daemon.stop()
	s.start()
	if got := spread(s.web, "tcp", at(vip, 80), 3); got["a"] != 3 {
		t.Errorf("on, after a restart: %v", got)
	}
}

// TestKilledInOff: a daemon that dies in the middle of an off has the next one
// finish it, what stands in hosts files included.
func TestKilledInOff(t *testing.T) {
	t.Parallel()
	const own = "127.0.0.1 localhost\n"
	s := newShop(t, "a")
	s.clients = nil
	hosts := s.web.EtcFile("hosts", own)
	s.join(s.web, "prod", "hostsFile: "+hosts)
	s.begin(service("orders", "", "a"))
	vip := s.vip(s.web, s.dns.Host, "orders")
	s.eventually(5*time.Second, func() error {
		if b, err := os.ReadFile(hosts); err != nil || !strings.Contains(string(b), vip.String()) {
			return fmt.Errorf("the hosts file is %q, %v", b, err)
		}
		return nil
	})
	s.daemon.kill() // as if just after it had written so
	s.write("state/off", "2026-01-02T03:04:05Z\n")
	if got := spread(s.web, "tcp", at(vip, 80), 1); got["a"] != 1 {
		t.Errorf("before the next one: %v", got)
	}
	s.start()
	s.back(vip, hosts, own)
	if st := s.status(); st.Off.Year() != 2026 {
		t.Errorf("off since %s", st.Off)
	}
}

// resolveAndAsk is a client that looks a name up before each connection, and
// does nothing while there is none.
func (s *shop) resolveAndAsk(name string) *load {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	s.Cleanup(func() { cancel(); l.wg.Wait() })
	for range 3 {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				a, err := lookup(s.web, s.dns.Host, name)
				if err != nil {
					pause(ctx, 10*time.Millisecond)
					continue
				}
				if _, err := s.web.Ask(context.Background(), "tcp", at(a, 80)); err != nil {
					l.fail("connection to a name just looked up", err)
				}
				l.opened.Add(1)
				l.pinged.Add(4)
			}
		})
	}
	return l
}
