package control

import (
	"slices"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Status)
		want Verdict
		has  []string // names of problems
	}{
		{"all well", func(*Status) {}, VerdictOK, nil},
		{"waiting", func(s *Status) { s.NotReady = []string{"catalog"} }, VerdictNotReady, []string{"notReady"}},
		{"hook detached", func(s *Status) { s.Kernel.Programs[0].Attached = false }, VerdictNotReady, []string{"programDetached"}},
		{"named by the daemon", func(s *Status) { s.Problems = []Problem{{Name: "noZone"}} }, VerdictDegraded, []string{"noZone"}},
		{"reload failed", func(s *Status) { s.Config.Error = "c.yaml:1: bad" }, VerdictDegraded, []string{"configError"}},
		{"restart needed", func(s *Status) { s.Config.RestartNeeded = []string{"zone"} }, VerdictDegraded, []string{"restartNeeded"}},
		{"catalog error", func(s *Status) { s.Catalog[0].Errors = []string{"bad"} }, VerdictDegraded, []string{"catalogError"}},
		{"task detached", func(s *Status) { s.Tasks[0].Attached = false }, VerdictDegraded, []string{"taskDetached"}},
		{"old reconcile error", func(s *Status) { s.Reconcile.LastError = "map" }, VerdictOK, nil},
		{"reconcile fails", func(s *Status) { s.Reconcile.Failing = true }, VerdictDegraded, []string{"reconcileFailing"}},
		{"short lag", func(s *Status) { s.Reconcile.LagSeconds = 1.9 }, VerdictOK, nil},
		{"long lag", func(s *Status) { s.Reconcile.LagSeconds = 2 }, VerdictDegraded, []string{"reconcileBehind"}},
		{"map nearly full", func(s *Status) { s.Kernel.Maps[0].Entries = 9 }, VerdictDegraded, []string{"mapFull"}},
		{"map half full", func(s *Status) { s.Kernel.Maps[0].Entries = 8 }, VerdictOK, nil},
		{"map without a bound", func(s *Status) { s.Kernel.Maps[0].MaxEntries = 0 }, VerdictOK, nil},
		{"services", func(s *Status) { s.Services = ServiceCounts{Total: 3, Panic: 1, LastResort: 1, NoEndpoint: 1} },
			VerdictDegraded, []string{"panic", "lastResort", "noEndpoint"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newNode().status()
			tt.set(&s)
			s.judge()
			var names []string
			for _, p := range s.Problems {
				names = append(names, p.Name)
				if p.Name != "noZone" && (p.Message == "" || p.Fix == "") {
					t.Errorf("problem %s says %q, to do %q", p.Name, p.Message, p.Fix)
				}
			}
			if s.Verdict != tt.want || !slices.Equal(names, tt.has) {
				t.Errorf("got %s %q, want %s %q", s.Verdict, names, tt.want, tt.has)
			}
		})
	}
}
