package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/testutil/docker"
)

const longEnv = "CONNECTD_E2E_LONG" // 1: as many containers as the issue asks for, in minutes

// earlyCalls are what the first calls of a network mode's containers came to.
type earlyCalls struct {
	mode  string
	pause bool // bridge mode as Service Connect has it
	// late is true where a container may run before connectd can know of it.
	late bool

	outcomes []appOutcome
	errs     []error
}

func (e *earlyCalls) name() string {
	if e.pause {
		return e.mode + " with pause"
	}
	return e.mode
}

// TestECSEarly: containers that call a name with their first instruction. Where
// a pause container comes first none comes too early; elsewhere one that does
// is served within 100 ms.
func TestECSEarly(t *testing.T) {
	each := 5
	if os.Getenv(longEnv) == "1" {
		each = 200
	}
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	i.task("awsvpc", "orders", serves("orders", 8080, ""), "serve", ":8080", "orders")
	i.active("prod/orders", 1)
	modes := []*earlyCalls{{mode: "awsvpc"}, {mode: "bridge", pause: true}, {mode: "bridge", late: true}, {mode: "host", late: true}}
	for _, m := range modes {
		t.Run(m.name(), func(t *testing.T) {
			begun := time.Now()
			i.startEarly(m, each)
			t.Logf("%s, in %s", m.report(), time.Since(begun).Round(time.Second))
			m.check(t, each)
		})
	}
}

// startEarly starts so many, a few at a time: what can be too early is a
// matter of one start, and 2 cores take 1 s for each.
func (i *instance) startEarly(m *earlyCalls, count int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for range count {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			o, err := i.callEarly(m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				m.errs = append(m.errs, err)
				return
			}
			m.outcomes = append(m.outcomes, o)
		})
	}
	wg.Wait()
}

func (i *instance) callEarly(m *earlyCalls) (o appOutcome, err error) {
	s := docker.TaskSpec{NetworkMode: m.mode, Pause: m.pause, Family: "caller", DNS: []netip.Addr{i.dns.Addr4()}, Containers: []docker.ContainerSpec{
		{Name: "main", Image: "app", Labels: callsOnly, Cmd: []string{"early", "http://orders/"}},
	}}
	task, err := i.engine.Task(i.Context(), s)
	if err != nil {
		return o, err
	}
	out, err := i.ended(i.Context(), task.Container("main").ID)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		return o, fmt.Errorf("said %q: %w", out, err)
	}
	return o, i.engine.StopTask(i.Context(), task, time.Second)
}

// tooEarly are those whose first call failed, the slowest last.
func (m *earlyCalls) tooEarly() (list []appOutcome) {
	for _, o := range m.outcomes {
		if o.Early != "" {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b appOutcome) int { return int(a.After - b.After) })
	return list
}

func (m *earlyCalls) report() string {
	early := m.tooEarly()
	text := fmt.Sprintf("%s: %d of %d called too early", m.name(), len(early), len(m.outcomes))
	if len(early) > 0 {
		last := early[len(early)-1]
		text += fmt.Sprintf(", the last was served after %s, it said: %s", last.After, last.Early)
	}
	return text
}

func (m *earlyCalls) check(t *testing.T, count int) {
	t.Helper()
	for _, err := range m.errs {
		t.Errorf("%s: %s", m.name(), err)
	}
	if len(m.outcomes) != count {
		t.Errorf("%s: %d containers said something, want %d", m.name(), len(m.outcomes), count)
	}
	for _, o := range m.outcomes {
		if o.OK != 1 || o.Bodies["orders"] != 1 {
			t.Errorf("%s: a container was never served: %+v", m.name(), o)
		}
	}
	early := m.tooEarly()
	if len(early) > 0 && !m.late {
		t.Errorf("%s: %d of %d came too early, want none", m.name(), len(early), count)
	}
	for _, o := range early {
		if m.late && o.After > 100*time.Millisecond {
			t.Errorf("%s: one that came too early was served after %s, want 100 ms: %s", m.name(), o.After, o.Early)
		}
	}
}

// TestECSBrief: tasks that end within 10 ms of their start, in every mode, with
// labels that are well or not, leave nothing and disturb nobody.
func TestECSBrief(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	i.task("awsvpc", "orders", serves("orders", 8080, ""), "serve", ":8080", "orders")
	i.active("prod/orders", 1)
	bad := map[string]string{"connectd.serviceConnect": `{"enabled": true, "namespace": 7}`}
	var brief []*docker.Task
	for _, mode := range []string{"awsvpc", "bridge", "host"} {
		brief = append(brief, i.task(mode, "brief", serves("brief", 8080, ""), "unknown"), i.task(mode, "bad", bad, "unknown"))
	}
	caller := i.task("awsvpc", "caller", callsOnly, "get", "http://orders/")
	if got := i.output(caller, "main"); got != "orders\n" {
		t.Errorf("beside brief tasks: %q", got)
	}
	for _, task := range brief {
		if out := i.output(task, "main"); !strings.Contains(out, "unknown") {
			t.Errorf("%s said %q", task.Family, out)
		}
		if err := i.engine.StopTask(t.Context(), task, time.Second); err != nil {
			t.Error(err)
		}
	}
	i.eventually(10*time.Second, func() error { return errors.Join(i.forgot("brief"), i.forgot("bad")) })
}
