package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// TestUnchangedIsShared: what a step did not touch is the same pointer.
func TestUnchangedIsShared(t *testing.T) {
	catalog := bigCatalog(20, lb.RoundRobin)
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(catalog)
	p.SetTasks([]lb.Task{{Name: "web", Namespaces: []string{"prod"}}, {Name: "cron"}})
	first := p.Step(epoch)

	changed := *catalog[7]
	changed.Endpoints = slices.Clone(changed.Endpoints[1:])
	next := slices.Clone(catalog)
	next[7] = &changed
	p.SetCatalog(next)
	p.SetTasks([]lb.Task{{Name: "cron"}, {Name: "web", Namespaces: []string{"prod"}}})
	second := p.Step(epoch)
	for i := range first.Services {
		if (first.Services[i] == second.Services[i]) != (i != 7) {
			t.Errorf("service %d: same pointer is %v", i, i == 7)
		}
	}
	if !same(first.Tasks, second.Tasks) || second.Revision != first.Revision+1 {
		t.Errorf("tasks changed, or revision %d after %d", second.Revision, first.Revision)
	}
	if first.Services[7].SlotsV4 == nil && len(first.Services[7].Endpoints) != 10 {
		t.Error("the first plan was written to")
	}

	// The same content under a new pointer is a new Service for those who
	// hold on to the catalog entry, and writes nothing to the journal.
	equal := changed
	next = slices.Clone(next)
	next[7] = &equal
	p.SetCatalog(next)
	third := p.Step(epoch)
	if third.Services[7].Service != &equal || len(third.Journal) != 0 {
		t.Errorf("journal %q", third.Journal)
	}
	if !Diff(second, third).Empty() {
		t.Error("equal content is a difference to write")
	}
}

// TestSetZone: a zone that is told later makes the plan that it would have made,
// whether a catalog is there or not, and the same zone makes none.
func TestSetZone(t *testing.T) {
	const text = "prod/%[1]s alias=%[1]s:80\n 10.0.%[2]d.1:80 zone=a\n 10.0.%[2]d.2:80 zone=b\n 10.0.%[2]d.3:80 zone=a\n 10.0.%[2]d.4:80 zone=b\n"
	catalog := parseCatalog(t, fmt.Sprintf(text, "x", 1)+fmt.Sprintf(text, "y", 2))
	slots := func(d *Desired) (out [][]lb.EndpointID) {
		for _, s := range d.Services {
			out = append(out, s.SlotsV4)
		}
		return out
	}
	first := mustNew(t, Config{Zone: "b"}, nil)
	first.SetCatalog(catalog)
	want := slots(first.Step(epoch))
	for _, early := range []bool{true, false} {
		p := mustNew(t, Config{}, nil)
		if early {
			p.Step(epoch)
			p.SetZone("b")
		}
		p.SetCatalog(catalog)
		before := p.Step(epoch)
		if early == slices.EqualFunc(slots(before), want, slices.Equal) {
			p.SetZone("b")
		} else {
			t.Errorf("told early %v: the first plan has slots %v", early, slots(before)[0])
		}
		after := p.Step(epoch)
		if got := slots(after); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("told early %v: slots %v, want %v", early, got[0], want[0])
		}
		if p.SetZone("b"); p.Step(epoch) != after {
			t.Error("the same zone made a plan")
		}
	}
}

// TestHTTPChanges: what a service says of HTTP makes a new plan of it, for
// readers compare pointers, and nothing else: no id, no VIP and no line of the
// journal depends on it.
func TestHTTPChanges(t *testing.T) {
	plain := parseCatalog(t, "prod/a alias=a:80\n 10.0.0.1:80\n 10.0.0.2:80\nprod/b alias=b:80\n 10.0.0.3:80\n")
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(plain)
	first := p.Step(epoch)
	journal := slices.Clone(first.Journal)
	before := first
	for name, http := range map[string]*lb.HTTP{
		"proxy":    {},
		"direct":   {Direct: true},
		"protocol": {Protocol: lb.AppGRPC},
		"timeout":  {RequestTimeout: time.Second},
		"none":     nil,
	} {
		changed := *plain[0]
		changed.HTTP = http
		p.SetCatalog([]*lb.Service{&changed, plain[1]})
		d := p.Step(epoch)
		if d.Services[0] == before.Services[0] || d.Services[0].HTTP != http || d.Services[1] != first.Services[1] {
			t.Errorf("%s: planned %+v, same pointer is %v", name, d.Services[0].HTTP, d.Services[0] == before.Services[0])
		}
		if !same(d.Services[0].Endpoints, first.Services[0].Endpoints) || !same(d.Services[0].Names, first.Services[0].Names) || len(d.Journal) != 0 {
			t.Errorf("%s: more changed, journal %q", name, d.Journal)
		}
		before = d
	}
	p = mustNew(t, Config{}, journal)
	p.SetCatalog([]*lb.Service{{Name: plain[0].Name, Protocol: lb.TCP, ClientAliases: plain[0].ClientAliases, Outlier: plain[0].Outlier,
		HTTP: &lb.HTTP{}, Endpoints: plain[0].Endpoints}, plain[1]})
	if d := p.Step(epoch); d.Services[0].ID != first.Services[0].ID || len(d.Journal) != 0 {
		t.Errorf("after a restart journal %q:\n%s", d.Journal, text(d))
	}
}

// TestClockGoesBack: a deadline is neither lost nor taken again.
func TestClockGoesBack(t *testing.T) {
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(parseCatalog(t, "prod/a alias=a:80 terminate=30s\n 10.0.0.1:80\n 10.0.0.2:80 draining\n"))
	d := p.Step(epoch)
	until := d.Services[0].Endpoints[1].DrainUntil
	if got := p.Step(epoch.Add(-time.Hour)); got != d {
		t.Errorf("a clock set back changed the plan:\n%s", text(got))
	}
	p.Observe([]lb.VerdictChange{{Endpoint: 1, Verdict: lb.VerdictHealthy}}, nil, nil)
	if got := p.Step(epoch.Add(-time.Hour)).Services[0].Endpoints[1].DrainUntil; got != until {
		t.Errorf("deadline moved from %s to %s", until, got)
	}
	if got := p.Step(epoch.Add(30 * time.Second)); !slices.Equal(got.Terminate, []lb.EndpointID{2}) {
		t.Errorf("terminate %d", got.Terminate)
	}
}

// TestNothingBeforeInputs: what the sources list is not known at start, and
// nothing may be taken for gone.
func TestNothingBeforeInputs(t *testing.T) {
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(bigCatalog(3, lb.RoundRobin))
	p.SetTasks([]lb.Task{{Name: "web"}})
	p.Step(epoch)
	snapshot := p.Snapshot()
	p = mustNew(t, Config{}, snapshot)
	d := p.Step(epoch.Add(time.Hour))
	if len(d.Services)+len(d.Tasks)+len(d.Journal) != 0 || !d.Wake.IsZero() {
		t.Errorf("planned from nothing:\n%s%s", text(d), d.Journal)
	}
	if got, want := lasting(p.Snapshot()), lasting(snapshot); !slices.Equal(got, want) {
		t.Errorf("memory changed:\n%s", firstDifference(got, want))
	}
}

// TestBadObservations: ids nobody has are ignored.
func TestBadObservations(t *testing.T) {
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(bigCatalog(1, lb.RoundRobin))
	d := p.Step(epoch)
	for _, id := range []lb.EndpointID{0, 11, 1 << 31} {
		p.Observe([]lb.VerdictChange{{Endpoint: id, Verdict: lb.VerdictHealthy}},
			[]lb.Strike{{Endpoint: id, Task: 1, Count: 9}, {Endpoint: 1, Task: 77, Count: 9}, {Endpoint: 1, Count: 9}},
			map[lb.EndpointID]uint32{id: 0})
	}
	if got := p.Step(epoch); got != d {
		t.Errorf("changed:\n%s", text(got))
	}
}

func TestTaskProblems(t *testing.T) {
	p := mustNew(t, Config{}, nil)
	tasks := make([]lb.Task, 0, maxTasks+3)
	for i := range maxTasks + 2 {
		tasks = append(tasks, lb.Task{Name: string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))})
	}
	p.SetTasks(append(tasks, tasks[0]))
	d := p.Step(epoch)
	if len(d.Tasks) != maxTasks || len(d.Problems) != 3 {
		t.Errorf("%d tasks, problems %q", len(d.Tasks), d.Problems)
	}
}
