package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestDraining: four ways of going away, the same life after it.
func TestDraining(t *testing.T) {
	t.Parallel()
	const terminate = "drain: {deadlineSeconds: 2, connections: terminate}"
	s := newShop(t, "a", "b")
	rest := service("left", "drain: {deadlineSeconds: 0.5, connections: leave}", "a", "b")
	both := func(names ...string) (out string) {
		for _, name := range names {
			out += service(name, terminate, "a", "b")
		}
		return out
	}
	s.begin(both("removed", "marked", "commanded"), rest)
	vip := map[string]string{}
	toA, toB := map[string]*held{}, map[string]*held{}
	for _, name := range []string{"removed", "marked", "commanded", "left"} {
		vip[name] = s.at80(name)
		toA[name], toB[name] = holdAt(t, s.web, vip[name], "a"), holdAt(t, s.web, vip[name], "b")
	}
	direct := hold(t, s.web, s.endpoint("b").String())

	begun := time.Now()
	s.catalog(service("removed", terminate, "a") + service("marked", terminate, "a", "b, draining: true") + both("commanded") +
		service("left", "drain: {deadlineSeconds: 0.5, connections: leave}", "a"))
	if e, err := s.control().Drain(context.Background(), "prod/commanded", s.endpoint("b")); err != nil || e.State != "draining" || e.DrainDeadline.IsZero() {
		t.Errorf("drain: %+v, %v", e, err)
	}
	s.inState("prod/marked", s.endpoint("b"), "draining")
	s.inState("prod/removed", s.endpoint("b"), "removed")
	for name, address := range vip {
		if got := spread(s.web, "tcp", address, 10); got["a"] != 10 {
			t.Errorf("%s: new connections go to %v", name, got)
		}
		if err := toB[name].works(); err != nil {
			t.Errorf("%s: before the deadline: %s", name, err)
		}
	}
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Logf("too slow a machine to have looked before the deadline: %s", took)
	}
	for _, name := range []string{"removed", "marked", "commanded"} {
		if err := toB[name].ended(6 * time.Second); err != nil {
			t.Errorf("%s: %s", name, err)
		}
		if took := time.Since(begun); took < 1900*time.Millisecond {
			t.Errorf("%s: ended after %s, before the deadline", name, took)
		}
	}
	for name, c := range toA {
		if err := c.works(); err != nil {
			t.Errorf("%s: the connection that stays: %s", name, err)
		}
	}
	for what, c := range map[string]*held{"left": toB["left"], "direct": direct} {
		if err := c.works(); err != nil {
			t.Errorf("%s: %s", what, err)
		}
	}
	if n := s.metric("connectd_terminated_connections_total", "reason", "endpoint"); n != 3 {
		t.Errorf("%v terminated connections counted, want 3", n)
	}
	s.undrain(vip["commanded"])
}

// undrain brings b of commanded back.
func (s *shop) undrain(address string) {
	s.Helper()
	if e, err := s.control().Undrain(context.Background(), "commanded", s.endpoint("b")); err != nil || e.State != "active" {
		s.Errorf("undrain: %+v, %v", e, err)
	}
	if got := spread(s.web, "tcp", address, 20); got["b"] < 7 || got["b"] > 13 { // each CPU goes round on its own
		s.Errorf("undrained: %v, want half in b", got)
	}
	if _, err := s.control().Drain(context.Background(), "prod/nobody", s.endpoint("b")); err == nil {
		s.Error("draining an unknown service is no error")
	}
}

// TestLastResort: an endpoint that drains is used when there is no other, and
// its connections are not ended.
func TestLastResort(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a", "b")
	s.begin(service("orders", "drain: {deadlineSeconds: 0.3, connections: terminate}", "a, draining: true", "b"))
	address := s.at80("orders")
	s.catalog(service("orders", "drain: {deadlineSeconds: 0.3, connections: terminate}", "a, draining: true"))
	s.gone("prod/orders", s.endpoint("b"))
	c := hold(t, s.web, address)
	if c.server != "a" {
		t.Fatalf("%s answers", c.server)
	}
	if err := c.ended(time.Second); err == nil {
		t.Error("a connection to the last resort was ended")
	}
	out, code := s.cli("status")
	if code != 0 {
		t.Errorf("status: exit %d\n%s", code, out)
	}
	s.catalog(service("orders", "drain: {deadlineSeconds: 0.3, connections: terminate}", "a, draining: true", "b"))
	s.eventually(5*time.Second, func() error {
		if got := spread(s.web, "tcp", address, 4); got["b"] != 4 {
			return fmt.Errorf("b is there: %v", got)
		}
		return nil
	})
	if err := c.ended(5 * time.Second); err != nil {
		t.Error(err)
	}
}
