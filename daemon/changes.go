package daemon

import (
	"context"
	"log/slog"
	"strings"

	"connectd/pkg/control"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// maxChanges bounds the lines that one plan may log: a zone that goes down
// changes thousands of endpoints at once, and status shows them all.
const maxChanges = 20

// changeLog says what became of endpoints, once a change, so that whoever
// reads the log at night sees the course of things and not only the present.
type changeLog struct {
	log     *slog.Logger
	events  *eventLog
	last    *plan.Desired
	lines   int
	dropped int
}

// publish compares a plan with the one before.
func (c *changeLog) publish(p *plan.Desired) {
	last := c.last
	c.last, c.lines, c.dropped = p, 0, 0
	if last == nil {
		return // a start is no change
	}
	c.tasks(last.Tasks, p.Tasks)
	before := last.Services
	for _, s := range p.Services {
		for len(before) > 0 && before[0].Name.Compare(s.Name) < 0 {
			before = before[1:]
		}
		if len(before) > 0 && before[0].Name == s.Name && before[0] != s {
			c.service(before[0], s)
		}
	}
	if c.dropped > 0 {
		c.log.Warn("more endpoints changed, see connectd endpoints", "changes", c.dropped)
		c.events.Add(control.Event{Kind: control.EventMore, Times: uint64(c.dropped), Reason: "connectd endpoints shows them"})
	}
}

// tasks tells of those that came and went; both lists are sorted by name.
func (c *changeLog) tasks(was, is []*plan.Task) {
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].Name < is[0].Name:
			c.events.Add(control.Event{Kind: control.EventLeft, Task: was[0].Name})
			was = was[1:]
		case len(was) == 0 || is[0].Name < was[0].Name:
			c.events.Add(control.Event{Kind: control.EventJoined, Task: is[0].Name, Reason: "may use " + strings.Join(is[0].Namespaces, ", ")})
			is = is[1:]
		default:
			was, is = was[1:], is[1:]
		}
	}
}

func (c *changeLog) service(was, is *plan.Service) {
	if is.Panic != was.Panic {
		c.write(is, control.EventPanic, "too few endpoints are healthy, health is ignored (panic)", "panic is over", is.Panic)
	}
	if is.LastResort != was.LastResort {
		c.write(is, control.EventLastResort, "only draining endpoints are left, they are used", "draining endpoints are no longer used", is.LastResort)
	}
	before := was.Endpoints
	for i := range is.Endpoints {
		e := &is.Endpoints[i]
		for len(before) > 0 && before[0].Address.Compare(e.Address) < 0 {
			before = before[1:]
		}
		if len(before) > 0 && before[0].Address == e.Address && before[0].State != e.State {
			c.endpoint(is, e, before[0].State)
		}
	}
}

func (c *changeLog) write(s *plan.Service, kind control.EventKind, begun, over string, on bool) {
	if on {
		c.log.Warn(begun, "service", s.Name.String())
		c.events.Add(control.Event{Kind: kind, Name: s.Name.String(), Reason: begun})
	} else {
		c.log.Info(over, "service", s.Name.String())
		c.events.Add(control.Event{Kind: control.EventOver, Name: s.Name.String(), Reason: over})
	}
}

func (c *changeLog) endpoint(s *plan.Service, e *plan.Endpoint, was lb.State) {
	if c.lines == maxChanges {
		c.dropped++
		return
	}
	c.lines++
	level := slog.LevelInfo
	if e.State == lb.StateUnhealthy || e.State == lb.StateEjected {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "endpoint is "+e.State.String(), "service", s.Name.String(), "endpoint", e.Address.String(),
		"was", was.String(), "reason", e.Reason)
	c.events.Add(control.Event{
		Kind: control.EventKind(e.State.String()), Name: s.Name.String(), Address: e.Address, Reason: e.Reason, Detail: "was " + was.String(),
	})
}
