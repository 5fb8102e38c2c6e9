package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

// TestQuietFleet: what a fleet calls in which nothing happens can be worked
// out by hand.
func TestQuietFleet(t *testing.T) {
	const nodes, minutes = 3, 20
	sc := fleetOf(nodes, 2).over(minutes * time.Minute)
	sc.deploys = 0
	r, err := simulate(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	entries := 2*sc.perService + nodes // tasks, and the nodes in the index
	if r.instances != entries || r.start["RegisterInstance"].all != entries {
		t.Errorf("%d instances by %d calls, want %d of both", r.instances, r.start["RegisterInstance"].all, entries)
	}
	if r.largest != sc.perService {
		t.Errorf("%d instances in one service, want %d", r.largest, sc.perService)
	}
	polls := nodes * minutes * 6 // of the index, every 10 s
	if n := r.steady["DiscoverInstancesRevision"].all; n < polls*95/100 || n > polls*105/100 {
		t.Errorf("%d polls, want about %d", n, polls)
	}
	for _, api := range []string{"RegisterInstance", "DeregisterInstance", "CreateService"} {
		if n := r.steady[api]; n != nil {
			t.Errorf("%d calls of %s while nothing happened", n.all, api)
		}
	}
	if n := r.steady["DiscoverInstances"].all; n > polls/10 {
		t.Errorf("%d calls of DiscoverInstances though no revision changed", n)
	}
	calls := r.steady["DiscoverInstancesRevision"].all + r.steady["DiscoverInstances"].all
	if got, want := r.callDollars(), float64(calls)/minutes*60*730/1e6; math.Abs(got-want) > want/1000 {
		t.Errorf("%d calls in %d minutes are $%g a month, want $%g", calls, minutes, got, want)
	}
	if got, want := r.instanceDollars(), float64(entries)/10; math.Abs(got-want) > 1e-9 {
		t.Errorf("%d instances are $%g a month, want $%g", entries, got, want)
	}
}

// TestDeployments: each replaced task is a registration, a change of the old
// one and its end; who calls the service sees the new one within two polls.
func TestDeployments(t *testing.T) {
	sc := fleetOf(4, 3).over(time.Hour)
	sc.deploys = 48 // two an hour, or three of which the last is of the next
	r, err := simulate(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	replaced := r.steady["DeregisterInstance"].all
	if one := 3 * sc.perService; replaced < one || replaced > 3*one {
		t.Errorf("%d tasks were replaced, want those of 1 to 3 deployments: %d each", replaced, one)
	}
	// Two for each task, and at most one of the index for each of its changes.
	if n := r.steady["RegisterInstance"].all; n < 2*replaced || n > 5*replaced+10 {
		t.Errorf("%d registrations for %d tasks", n, replaced)
	}
	if len(r.delays) < replaced {
		t.Errorf("%d of %d new tasks were seen", len(r.delays), replaced)
	}
	if last := r.delays[len(r.delays)*95/100]; last > 20*time.Second+shows {
		t.Errorf("95 of 100 were seen within %s", last)
	}
}

// TestFullService: no service has more instances than Cloud Map lets it have,
// however many nodes begin at once; the index goes on in another.
func TestFullService(t *testing.T) {
	sc := fleetOf(serviceInstances+50, 1).over(0)
	sc.deploys, sc.length, sc.sample = 0, time.Minute, 3
	r, err := simulate(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	if want := sc.nodes + sc.perService; r.largest > serviceInstances || r.instances != want {
		t.Errorf("%d instances, %d in one service, want %d and at most %d", r.instances, r.largest, want, serviceInstances)
	}
}

// TestBroken: a fleet beyond a quota is said to be.
func TestBroken(t *testing.T) {
	r := result{
		scenario: scenario{nodes: 100, services: 5, length: 100 * time.Second}, peakScale: 10, instances: 2000, largest: 1000,
		steady: map[string]*count{"DiscoverInstances": {all: 1000, most: 500}, "ecs:DescribeTasks": {all: 200, most: 20}},
		start:  map[string]*count{"DiscoverInstances": {all: 1000, most: 1000}},
	}
	if got := r.broken(); got != nil {
		t.Errorf("at the quotas it is beyond %q", got)
	}
	if api, share := r.nearest(); api != "DescribeTasks" || share != 1 {
		t.Errorf("nearest is %s with %g", api, share)
	}
	r.instances, r.largest, r.start["DiscoverInstances"].most, r.steady["ecs:DescribeTasks"].all = 2001, 1001, 1001, 201
	want := []string{"DiscoverInstances when all nodes start in the same second: 1001 calls a second of 1000", "DescribeTasks: 20 calls a second of 20",
		"instances in the namespace: 2001 of 2000, which can be raised", "instances in one service: 1001 of 1000"}
	if got := r.broken(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it is beyond %q, want %q", got, want)
	}
	if text := report([]result{r}); strings.Count(text, "**Beyond a quota:**") != 4 {
		t.Errorf("the report does not say it:\n%s", text)
	}
}

func TestCloudWatchPrices(t *testing.T) {
	for n, want := range map[float64]float64{0: 0, 10: 3, 10_000: 3000, 10_010: 3001, 250_000: 27_000, 1_000_000: 64_500, 1_000_100: 64_502} {
		if got := seriesDollars(n); math.Abs(got-want) > 1e-6 {
			t.Errorf("%g metrics are $%g, want $%g", n, got, want)
		}
	}
	for i, want := range []int{4*2 + 7*(1+callers), 2 + 2*(1+callers), 1 + callers} {
		if got := seriesOf(selections[i].names); got != want {
			t.Errorf("%s: %d series of a service, want %d", selections[i].name, got, want)
		}
	}
	if got := putDollars(1); math.Abs(got-0.438) > 1e-9 {
		t.Errorf("a node's calls are $%g", got)
	}
}

// TestDocument: docs/scale.md is of this program, has every fleet, and says
// that the one that connectd promises to be affordable is.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range scenarios(time.Hour) {
		r := result{scenario: sc}
		if n := strings.Count(string(text), "\n"+r.name()); n != 2 {
			t.Errorf("%d rows of %s, want 2", n, r.name())
		}
	}
	if !strings.HasPrefix(string(text), head) || !strings.Contains(string(text), cloudWatch([]result{{scenario: fleetOf(200, 100)}})[:200]) {
		t.Error("it is not what this program writes: run it again")
	}
	_, line, _ := strings.Cut(string(text), "**200 nodes, 100 services**")
	line, _, _ = strings.Cut(line, "\n")
	var calls, dollars float64
	if _, err := fmt.Sscanf(line, " (callsPerSecond %g): $%g a month", &calls, &dollars); err != nil || dollars >= 250 || strings.Contains(line, "Beyond") {
		t.Errorf("200 nodes with 100 services:%s (%v)", line, err)
	}
}
