package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"connectd/pkg/control"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func TestChangeLog(t *testing.T) {
	var out bytes.Buffer
	c := &changeLog{events: newEventLog(), log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}
	plans := func(state lb.State, panic bool, endpoints int) *plan.Desired {
		s := &plan.Service{Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}}, Panic: panic}
		for i := range endpoints {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 66, 0, byte(i)}), 80)
			s.Endpoints = append(s.Endpoints, plan.Endpoint{Endpoint: lb.Endpoint{Address: at}, State: state, Reason: "status 503"})
		}
		return &plan.Desired{Services: []*plan.Service{s}}
	}
	expect := func(step string, want ...string) {
		t.Helper()
		got := strings.TrimSpace(out.String())
		if got != strings.Join(want, "\n") {
			t.Errorf("%s: logged\n%s\nwant\n%s", step, got, strings.Join(want, "\n"))
		}
		out.Reset()
	}
	c.publish(plans(lb.StateActive, false, 2))
	expect("start")
	c.publish(plans(lb.StateUnhealthy, true, 1))
	expect("failing",
		`level=WARN msg="too few endpoints are healthy, health is ignored (panic)" service=prod/orders`,
		`level=WARN msg="endpoint is unhealthy" service=prod/orders endpoint=10.66.0.0:80 was=active reason="status 503"`)
	same := c.last
	c.publish(same)
	expect("nothing new")
	c.publish(plans(lb.StateActive, false, 1))
	expect("well again",
		`level=INFO msg="panic is over" service=prod/orders`,
		`level=INFO msg="endpoint is active" service=prod/orders endpoint=10.66.0.0:80 was=unhealthy reason="status 503"`)
	c.publish(plans(lb.StateActive, false, 100))
	expect("new endpoints are no change")
	c.publish(plans(lb.StateEjected, false, 100))
	if n := strings.Count(out.String(), "\n"); n != maxChanges+1 || !strings.Contains(out.String(), "changes=80") {
		t.Errorf("100 changes: %d lines\n%s", n, out.String())
	}
	if list := c.events.After("").Events; list[len(list)-1].Kind != control.EventMore || list[len(list)-1].Times != 80 {
		t.Errorf("the last event is %+v", list[len(list)-1])
	}
}

// Tasks of both lists, of one, and of the other.
func TestTaskEvents(t *testing.T) {
	plans := func(names ...string) *plan.Desired {
		p := &plan.Desired{}
		for _, n := range names {
			p.Tasks = append(p.Tasks, &plan.Task{Task: lb.Task{Name: n, Namespaces: []string{"prod"}}})
		}
		return p
	}
	c := &changeLog{events: newEventLog(), log: slog.New(slog.DiscardHandler)}
	c.publish(plans("b", "d"))
	c.publish(plans("a", "b", "c", "e"))
	c.publish(plans())
	var got []string
	for _, e := range c.events.After("").Events {
		got = append(got, string(e.Kind)+" "+e.Task)
	}
	if want := "joined a, joined c, left d, joined e, left a, left b, left c, left e"; strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}
