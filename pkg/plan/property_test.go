package plan

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// TestRandomHistories drives planners through random events and checks after
// each step what must always hold.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(24) {
		cfg := Config{VIP4: netip.MustParsePrefix("10.0.0.0/25")} // small, for collisions
		if seed%3 == 1 {
			cfg.Zone = "a"
		}
		if seed%3 == 2 {
			cfg.MaxEndpoints, cfg.MaxServices, cfg.MaxSlots = 40, 6, 300
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { newHistory(t, cfg, seed).run(200) })
	}
}

// history is two planners fed the same, which must stay the same, and what is
// remembered to judge them.
type history struct {
	*testing.T
	rand  *rand.Rand
	cfg   Config
	a, b  *Planner
	last  *Desired
	now   time.Time
	lines []byte // the journal since the last restart's snapshot

	services map[lb.ServiceName]*lb.Service
	tasks    map[string]lb.Task
	left     map[lb.EndpointID]time.Time // when an id left Desired
	busy     map[lb.EndpointID]bool      // last observed with connections
}

func newHistory(t *testing.T, cfg Config, seed uint64) *history {
	return &history{T: t, rand: rand.New(rand.NewPCG(seed, 1)), cfg: cfg, now: epoch,
		a: mustNew(t, cfg, nil), b: mustNew(t, cfg, nil),
		services: make(map[lb.ServiceName]*lb.Service), tasks: make(map[string]lb.Task),
		left: make(map[lb.EndpointID]time.Time), busy: make(map[lb.EndpointID]bool)}
}

func (h *history) run(steps int) {
	h.setCatalog()
	h.setTasks()
	for range steps {
		for range 1 + h.rand.IntN(4) {
			h.event()
		}
		h.now = h.now.Add(time.Duration(h.rand.IntN(8)) * time.Second)
		h.step()
		if h.Failed() {
			return
		}
	}
}

func (h *history) both(do func(p *Planner)) { do(h.a); do(h.b) }

func (h *history) event() {
	switch h.rand.IntN(12) {
	case 0, 1, 2:
		h.changeService()
		h.setCatalog()
	case 3:
		name := fmt.Sprint("task-", h.rand.IntN(4))
		if _, ok := h.tasks[name]; ok {
			delete(h.tasks, name)
		} else {
			h.tasks[name] = lb.Task{Name: name, Namespaces: []string{"prod"}}
		}
		h.setTasks()
	case 4, 5:
		if e := h.anyEndpoint(); e != nil {
			v := lb.VerdictChange{Endpoint: e.ID, Verdict: lb.Verdict(h.rand.IntN(3)), Reason: fmt.Sprint("reason ", h.rand.IntN(2))}
			h.both(func(p *Planner) { p.Observe([]lb.VerdictChange{v}, nil, nil) })
		}
	case 6, 7, 8:
		if e := h.anyEndpoint(); e != nil && len(h.last.Tasks) > 0 {
			s := lb.Strike{Endpoint: e.ID, Task: h.last.Tasks[h.rand.IntN(len(h.last.Tasks))].ID, Count: uint32(h.rand.IntN(8)), At: h.now, HTTP: h.rand.IntN(2) == 0}
			h.both(func(p *Planner) { p.Observe(nil, []lb.Strike{s}, nil) })
		}
	case 9, 10:
		h.observeCounts()
	case 11:
		h.drain()
	}
}

func (h *history) changeService() {
	namespace := fmt.Sprint("ns-", h.rand.IntN(2))
	if h.rand.IntN(2) == 0 {
		namespace = "prod"
	}
	name := lb.ServiceName{Namespace: namespace, DiscoveryName: fmt.Sprint("s", h.rand.IntN(4))}
	if h.rand.IntN(4) == 0 {
		delete(h.services, name)
		return
	}
	s := &lb.Service{Name: name, Protocol: lb.TCP,
		Drain:   lb.Drain{Deadline: time.Duration(1+h.rand.IntN(20)) * time.Second, Terminate: h.rand.IntN(3) > 0},
		Outlier: lb.Outlier{ConsecutiveFailures: 5, BaseEjection: 10 * time.Second, MaxEjection: 40 * time.Second, MaxEjectionPercent: uint8(h.rand.IntN(101))}}
	s.LoadBalancing.Policy = lb.Policy(h.rand.IntN(4))
	s.LoadBalancing.PanicThresholdPercent = uint8(h.rand.IntN(3) * 50)
	for range h.rand.IntN(3) {
		s.ClientAliases = append(s.ClientAliases, lb.ClientAlias{DNSName: fmt.Sprint("alias-", h.rand.IntN(6)), Port: uint16(80 + h.rand.IntN(3))})
	}
	if h.rand.IntN(2) == 0 {
		s.HealthCheck = &lb.HealthCheck{}
	}
	if h.rand.IntN(2) == 0 {
		s.HTTP = &lb.HTTP{Direct: h.rand.IntN(2) == 0}
	}
	for i := range 6 {
		if h.rand.IntN(2) == 0 {
			continue
		}
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		if i > 3 {
			addr = netip.MustParseAddr(fmt.Sprint("fd00::", i))
		}
		e := lb.Endpoint{Address: netip.AddrPortFrom(addr, 80), Weight: uint16(1 + h.rand.IntN(3)),
			Zone: string(rune('a' + h.rand.IntN(2))), Draining: h.rand.IntN(6) == 0}
		if h.rand.IntN(2) == 0 {
			e.Declared = lb.Declared(h.rand.IntN(4))
		}
		if h.rand.IntN(4) == 0 {
			e.Task = fmt.Sprint("task-", h.rand.IntN(4))
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	h.services[name] = s
}

func (h *history) setCatalog() {
	list := []*lb.Service{}
	for _, s := range h.services {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *lb.Service) int { return a.Name.Compare(b.Name) })
	h.both(func(p *Planner) { p.SetCatalog(list) })
}

func (h *history) setTasks() {
	list := []lb.Task{}
	for _, t := range h.tasks {
		list = append(list, t)
	}
	h.both(func(p *Planner) { p.SetTasks(list) }) // in any order
}

func (h *history) anyEndpoint() *Endpoint {
	if h.last == nil || len(h.last.Services) == 0 {
		return nil
	}
	s := h.last.Services[h.rand.IntN(len(h.last.Services))]
	if len(s.Endpoints) == 0 {
		return nil
	}
	return &s.Endpoints[h.rand.IntN(len(s.Endpoints))]
}

func (h *history) observeCounts() {
	if h.last == nil {
		return
	}
	counts := make(map[lb.EndpointID]uint32)
	for _, id := range h.last.Watch {
		if n := h.rand.IntN(4); n < 3 {
			counts[id] = uint32(max(0, n-1))
			h.busy[id] = counts[id] > 0
		}
	}
	h.both(func(p *Planner) { p.Observe(nil, nil, counts) })
}

func (h *history) drain() {
	if h.last == nil || len(h.last.Services) == 0 {
		return
	}
	s := h.last.Services[h.rand.IntN(len(h.last.Services))]
	on := h.rand.IntN(2) == 0
	for _, e := range s.Endpoints[:min(1, len(s.Endpoints))] {
		h.both(func(p *Planner) {
			if err := p.Drain(s.Name, e.Address, on); err != nil {
				h.Error(err)
			}
		})
	}
}

func (h *history) step() {
	a, b := h.a.Step(h.now), h.b.Step(h.now)
	if text(a) != text(b) || !bytes.Equal(a.Journal, b.Journal) || a.Revision != b.Revision {
		h.Fatalf("same inputs, different plans:\n%s\n%s", text(a), text(b))
	}
	if again := h.a.Step(h.now); again != a {
		h.Fatalf("the same step again is a change:\n%s\n%s", text(a), text(again))
	}
	if a == h.last {
		return
	}
	h.lines = append(h.lines, a.Journal...)
	h.check(h.last, a)
	h.last = a
	if h.rand.IntN(10) == 0 {
		h.restart()
	}
}

// restart replaces b by a planner made from the journal and a by one made from
// the snapshot. Bounds are tried again by a new planner, so only without them
// must the plan be the same.
func (h *history) restart() {
	snapshot := h.a.Snapshot()
	h.b, h.a = mustNew(h, h.cfg, append(slices.Clone(h.lines), "torn"...)), mustNew(h, h.cfg, snapshot)
	if a, b := lasting(h.a.Snapshot()), lasting(h.b.Snapshot()); !slices.Equal(a, b) {
		h.Fatalf("snapshot and journal differ:\n%s", firstDifference(a, b))
	}
	h.lines = snapshot
	h.setCatalog()
	h.setTasks()
	before := h.last
	h.last = h.a.Step(h.now)
	if b := h.b.Step(h.now); text(b) != text(h.last) {
		h.Fatalf("from the snapshot:\n%s\nfrom the journal:\n%s", text(h.last), text(b))
	}
	h.lines = append(h.lines, h.last.Journal...)
	if h.cfg.MaxSlots == 0 && text(before) != text(h.last) {
		h.Fatalf("after a restart and before:\n%s", firstDifference(strings.Split(text(h.last), "\n"), strings.Split(text(before), "\n")))
	}
}

// lasting drops lines that may differ: ejections are forgotten when they have
// decayed, of which the journal says nothing, and its clock is that of the last
// step with something to write.
func lasting(journal []byte) []string {
	return slices.DeleteFunc(strings.Split(string(journal), "\n"), func(l string) bool {
		return strings.HasPrefix(l, "eject ") || strings.HasPrefix(l, "clock ")
	})
}

func firstDifference(a, b []string) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] + "\n" + b[i]
		}
	}
	return fmt.Sprintf("%q\n%q", a[min(len(a), len(b)):], b[min(len(a), len(b)):])
}

// text is a plan but for its revision.
func text(d *Desired) string {
	var w bytes.Buffer
	printDesired(&w, d)
	_, rest, _ := strings.Cut(w.String(), "revision")
	_, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	return rest
}

func (h *history) check(prev, d *Desired) {
	if !d.Wake.IsZero() && !d.Wake.After(h.now) {
		h.Errorf("wake %s is not after now %s", d.Wake, h.now)
	}
	endpoints, ids := make(map[lb.EndpointID]string), make(map[lb.ServiceID]bool)
	vips, slots := make(map[netip.Addr]nameKey), 0
	for _, s := range d.Services {
		if ids[s.ID] || s.ID == 0 {
			h.Errorf("service id %d is given twice", s.ID)
		}
		ids[s.ID] = true
		slots += len(s.SlotsV4) + len(s.SlotsV6)
		for _, e := range s.Endpoints {
			if _, ok := endpoints[e.ID]; ok || e.ID == 0 {
				h.Errorf("endpoint id %d is given twice", e.ID)
			}
			endpoints[e.ID] = fmt.Sprint(s.Name, e.Address)
		}
		h.checkSlots(s)
		for _, n := range s.Names {
			key := nameKey{s.Name.Namespace, n.DNSName}
			for _, addr := range []netip.Addr{n.V4, n.V6} {
				if other, ok := vips[addr]; ok && other != key {
					h.Errorf("%v and %v have one VIP %s", other, key, addr)
				}
				if addr.IsValid() {
					vips[addr] = key
				}
			}
		}
	}
	if h.cfg.MaxSlots > 0 && slots > h.cfg.MaxSlots {
		h.Errorf("%d slots", slots)
	}
	h.checkFrontends(d)
	h.checkLocal(prev, d)
	if prev != nil {
		h.checkReuse(prev, endpoints)
		h.checkSticky(prev, d)
	}
}

func (h *history) checkSlots(s *Service) {
	active4 := false
	for _, e := range s.Endpoints {
		active4 = active4 || e.State == lb.StateActive && e.Address.Addr().Is4()
	}
	if active4 && len(s.SlotsV4) == 0 && h.cfg.MaxSlots == 0 {
		h.Errorf("%s has an active endpoint and no slots", s.Name)
	}
	for i, table := range [][]lb.EndpointID{s.SlotsV4, s.SlotsV6} {
		for _, id := range table {
			k := slices.IndexFunc(s.Endpoints, func(e Endpoint) bool { return e.ID == id })
			if k < 0 {
				h.Fatalf("slot of %s names %d", s.Name, id)
			}
			e := s.Endpoints[k]
			ok := e.State == lb.StateActive || s.Panic && (e.State == lb.StateUnhealthy || e.State == lb.StateEjected) ||
				s.LastResort && e.State == lb.StateDraining
			ok = ok && e.Declared != lb.DeclaredPending || e.State == lb.StateDraining
			if !ok || e.Address.Addr().Is4() != (i == 0) {
				h.Errorf("slot of %s names %d, which is %s at %s", s.Name, id, e.State, e.Address)
			}
		}
	}
}

func (h *history) checkFrontends(d *Desired) {
	owners := make(map[Frontend]lb.ServiceName)
	for _, s := range d.Services {
		for _, f := range s.Frontends() {
			if other, ok := owners[f]; ok && other != s.Name {
				h.Errorf("frontend %v of %s and %s", f, other, s.Name)
			}
			owners[f] = s.Name
		}
	}
}

// checkLocal: what tasks serve is found, and a task that was ready stays so.
func (h *history) checkLocal(prev, d *Desired) {
	served := 0
	for _, s := range d.Services {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if e.Task == "" || e.State == lb.StateRemoved {
				continue
			}
			served++
			if !slices.ContainsFunc(d.Serves(e.Task), func(l Served) bool { return l.Service == s && l.Endpoint == e }) {
				h.Errorf("%s does not serve %s of %s", e.Task, e.Address, s.Name)
			}
		}
	}
	if served != len(d.Local) {
		h.Errorf("%d endpoints of local tasks, %d listed", served, len(d.Local))
	}
	for _, t := range d.Tasks {
		if !t.Ready && d.Missing(t.Name) == "" {
			h.Errorf("task %s is not ready and misses nothing", t.Name)
		}
		if prev == nil || t.Ready || len(prev.Serves(t.Name)) == 0 {
			continue
		}
		if slices.ContainsFunc(prev.Tasks, func(was *Task) bool { return was.Name == t.Name && was.ID == t.ID && was.Ready }) {
			h.Errorf("task %s was ready", t.Name)
		}
	}
}

// checkReuse: an id that left Desired rests 10 s and until it was seen idle.
func (h *history) checkReuse(prev *Desired, endpoints map[lb.EndpointID]string) {
	before := make(map[lb.EndpointID]string)
	for _, s := range prev.Services {
		for _, e := range s.Endpoints {
			before[e.ID] = fmt.Sprint(s.Name, e.Address)
			if _, ok := endpoints[e.ID]; !ok {
				h.left[e.ID] = h.now
			}
		}
	}
	for id, who := range endpoints {
		if was, ok := before[id]; ok && was != who {
			h.Errorf("endpoint id %d went from %s to %s", id, was, who)
		}
		if at, ok := h.left[id]; ok {
			if h.now.Sub(at) < quarantine || h.busy[id] {
				h.Errorf("endpoint id %d left %s ago, busy %v, and is in use again", id, h.now.Sub(at), h.busy[id])
			}
			delete(h.left, id)
		}
	}
}

// checkSticky: the VIPs of a name stay while its service has it.
func (h *history) checkSticky(prev, d *Desired) {
	for _, was := range prev.Services {
		i := slices.IndexFunc(d.Services, func(s *Service) bool { return s.Name == was.Name })
		if i < 0 {
			continue
		}
		for _, n := range was.Names {
			for _, m := range d.Services[i].Names {
				if n.DNSName == m.DNSName && (n.V4.IsValid() && n.V4 != m.V4 || n.V6.IsValid() && n.V6 != m.V6) {
					h.Errorf("VIPs of %s went from %s %s to %s %s", n.DNSName, n.V4, n.V6, m.V4, m.V6)
				}
			}
		}
	}
}

// TestNodesAgree: planners that saw the same catalog at once give the same
// VIPs, whatever ids and history they have.
func TestNodesAgree(t *testing.T) {
	fresh := mustNew(t, Config{}, nil)
	catalog := bigCatalog(300, lb.RoundRobin)
	fresh.SetCatalog(catalog)
	want := fresh.Step(epoch)
	other := mustNew(t, Config{}, nil)
	other.SetCatalog(bigCatalog(20, lb.RoundRobin)[10:])
	other.Step(epoch)
	other.SetCatalog(catalog)
	got := other.Step(epoch)
	for i := range want.Services {
		if !slices.EqualFunc(want.Services[i].Names, got.Services[i].Names, equalNames) {
			t.Errorf("%s: %v, want %v", want.Services[i].Name, got.Services[i].Names, want.Services[i].Names)
		}
	}
}
