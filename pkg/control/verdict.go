package control

import (
	"fmt"
	"strings"
)

// mapFullPercent is the fill from which a map is a problem: some room is left
// to act in.
const mapFullPercent = 90

// lagSeconds from which the kernel being behind is a problem: a hundred times
// what one change may take.
const lagSeconds = 2

// judge adds the problems that the rest of the status shows to those that the
// daemon named itself, and sums them up.
func (s *Status) judge() {
	if !s.Off.IsZero() {
		s.add("off", "connectd is OFF on this node, by command: no task is served", "connectd on")
	}
	blocked := len(s.NotReady) > 0
	if blocked {
		s.add("notReady", "waiting for "+strings.Join(s.NotReady, ", "), "the log says what it waits on; connectd doctor checks this node")
	}
	for _, p := range s.Kernel.Programs {
		if !p.Attached {
			blocked = true
			s.add("programDetached", withDetail(fmt.Sprintf("hook %s is not attached", p.Name), p.Error), "run connectd doctor, then restart the daemon")
		}
	}
	s.judgeFiles()
	for _, t := range s.Tasks {
		if !t.Attached && s.Off.IsZero() {
			s.add("taskDetached", withDetail(fmt.Sprintf("task %s is not attached", t.Name), t.Error), fmt.Sprintf("check that %s %s exists; it is tried again by itself", t.Kind, t.Target))
		}
	}
	s.judgeReconcile()
	for _, m := range s.Kernel.Maps {
		if m.MaxEntries > 0 && m.Entries*100 >= m.MaxEntries*mapFullPercent {
			s.add("mapFull", fmt.Sprintf("map %s holds %d of %d entries", m.Name, m.Entries, m.MaxEntries), "raise limits in the config, stop the daemon, run connectd unload, start it")
		}
	}
	s.judgeServices()
	if s.Problems == nil {
		s.Problems = []Problem{} // "problems": null would break whoever goes through them
	}
	switch {
	case blocked:
		s.Verdict = VerdictNotReady
	case len(s.Problems) > 0:
		s.Verdict = VerdictDegraded
	default:
		s.Verdict = VerdictOK
	}
}

func (s *Status) judgeFiles() {
	if s.Config.Error != "" {
		s.add("configError", "the config as it is now is not in use:\n"+s.Config.Error, "correct it, test it with connectd check, then connectd reload")
	}
	if len(s.Config.RestartNeeded) > 0 {
		s.add("restartNeeded", "changed in the config but not in use: "+strings.Join(s.Config.RestartNeeded, ", "), "restart the daemon; connections survive it")
	}
	for _, f := range s.Catalog {
		if len(f.Errors) > 0 {
			s.add("catalogError", fmt.Sprintf("catalog file %s as it is now is not in use:\n%s", f.Path, strings.Join(f.Errors, "\n")), "correct it; it is read again by itself")
		}
	}
}

func (s *Status) judgeReconcile() {
	r := s.Reconcile
	switch {
	case r.Failing:
		s.add("reconcileFailing", withDetail(fmt.Sprintf("the kernel is at revision %d of %d", r.Applied, r.Revision), r.LastError), "the log has the details; it is tried again by itself")
	case r.LagSeconds >= lagSeconds:
		s.add("reconcileBehind", fmt.Sprintf("the kernel is at revision %d of %d, %.0f s behind", r.Applied, r.Revision, r.LagSeconds), "if it does not catch up, the node lacks CPU or the daemon hangs")
	}
}

func (s *Status) judgeServices() {
	const look = "connectd services shows which, connectd endpoints shows why"
	for _, c := range []struct {
		count     int
		name, say string
	}{
		{s.Services.Panic, "panic", "in panic: too few endpoints are healthy, so health is ignored"},
		{s.Services.LastResort, "lastResort", "on the last resort: only draining endpoints are left, and used"},
		{s.Services.NoEndpoint, "noEndpoint", "without a usable endpoint: connects to them fail"},
	} {
		if c.count > 0 {
			s.add(c.name, fmt.Sprintf("%d of %d services %s", c.count, s.Services.Total, c.say), look)
		}
	}
}

func (s *Status) add(name, message, fix string) {
	s.Problems = append(s.Problems, Problem{name, message, fix})
}

func withDetail(what, detail string) string {
	if detail == "" {
		return what
	}
	return what + ": " + detail
}
