package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const drainTime = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Loop over a real planner and fakes. It must be made and used inside
// a synctest bubble.
type rig struct {
	*testing.T
	*Loop
	planner *plan.Planner
	kernel  *fakeKernel
	journal *fakeJournal
	stop    func()
	logged  *syncBuffer

	mu        sync.Mutex
	catalog   []*lb.Service
	tasks     []lb.Task
	calls     []string // in order: journal, kernel, publish
	published []*plan.Desired
}

func newRig(t *testing.T) *rig {
	t.Helper()
	planner, err := plan.New(plan.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, planner: planner, logged: &syncBuffer{}}
	r.kernel = newFakeKernel(r.called)
	r.journal = &fakeJournal{called: r.called}
	r.Loop = New(Params{
		Log: slog.New(slog.NewTextHandler(r.logged, nil)), Planner: planner, Kernel: r.kernel, Journal: r.journal,
		Catalog: func() []*lb.Service { r.mu.Lock(); defer r.mu.Unlock(); return slices.Clone(r.catalog) },
		Tasks:   func() []lb.Task { r.mu.Lock(); defer r.mu.Unlock(); return slices.Clone(r.tasks) },
		Publish: r.publish,
	})
	return r
}

// start runs the loop until the test ends or stop is called.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Loop.Run(ctx); err != nil {
			r.Errorf("Run: %s", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	r.Cleanup(r.stop)
}

func (r *rig) called(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, what)
}

func (r *rig) publish(d *plan.Desired) {
	r.called("publish")
	if err := r.kernel.holds(d); err != nil {
		r.Errorf("revision %d is published, but the kernel does not hold it: %s", d.Revision, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.published); n > 0 && r.published[n-1].Revision >= d.Revision {
		r.Errorf("revision %d is published after %d", d.Revision, r.published[n-1].Revision)
	}
	r.published = append(r.published, d)
}

func (r *rig) takeCalls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *rig) plans() []*plan.Desired {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.published)
}

func (r *rig) setCatalog(services ...*lb.Service) {
	slices.SortFunc(services, func(a, b *lb.Service) int { return a.Name.Compare(b.Name) })
	r.mu.Lock()
	r.catalog = services
	r.mu.Unlock()
	r.CatalogChanged()
}

func (r *rig) setTasks(tasks ...lb.Task) {
	r.mu.Lock()
	r.tasks = tasks
	r.mu.Unlock()
	r.TasksChanged()
}

// remembers fails the test when a planner made from the journal would know
// other ids, VIPs or deadlines than the one that ran.
func (r *rig) remembers() {
	r.Helper()
	synctest.Wait() // the planner is the loop's
	again, err := plan.New(plan.Config{}, r.journal.content())
	if err != nil {
		r.Fatal(err)
	}
	if got, want := memory(again), memory(r.planner); got != want {
		r.Errorf("the journal says\n%s\nthe planner\n%s", got, want)
	}
}

// memory is a planner's snapshot but for the time, and for ejections: that one
// is over is not worth a line in the journal.
func memory(p *plan.Planner) string {
	var kept []string
	for line := range strings.Lines(string(p.Snapshot())) {
		if !strings.HasPrefix(line, "clock ") && !strings.HasPrefix(line, "eject ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func service(name string, endpoints ...string) *lb.Service {
	s := &lb.Service{
		Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP,
		ClientAliases: []lb.ClientAlias{{DNSName: name, Port: 80}},
		Drain:         lb.Drain{Deadline: drainTime, Terminate: true},
		Outlier:       lb.Outlier{ConsecutiveFailures: 5, BaseEjection: drainTime, MaxEjection: 10 * drainTime, MaxEjectionPercent: 50},
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, lb.Endpoint{Address: netip.MustParseAddrPort(e), Weight: 1})
	}
	return s
}

var errFault = errors.New("injected fault")

// fakeKernel holds what was written entry by entry, with the promises that
// datapath makes: Apply may stop after any entry, Resync repairs and prunes
// what a hash map names but does not look at slots.
type fakeKernel struct {
	called func(string)

	mu        sync.Mutex
	fault     func(step string) error // asked before each entry is written
	block     chan struct{}           // nil, or Apply waits until it is closed
	stray     int                     // what the next Resync finds
	asked     int                     // calls of Active
	active    map[lb.EndpointID]uint32
	endpoints map[lb.EndpointID]plan.EndpointChange
	slots     map[lb.ServiceID][]lb.EndpointID
	fronts    map[plan.Frontend]lb.ServiceID
	tasks     map[uint64]lb.TaskID // by netns cookie
}

func newFakeKernel(called func(string)) *fakeKernel {
	return &fakeKernel{
		called: called, fault: func(string) error { return nil }, active: map[lb.EndpointID]uint32{},
		endpoints: map[lb.EndpointID]plan.EndpointChange{}, slots: map[lb.ServiceID][]lb.EndpointID{},
		fronts: map[plan.Frontend]lb.ServiceID{}, tasks: map[uint64]lb.TaskID{},
	}
}

func (k *fakeKernel) setFault(f func(step string) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = f
}

func (k *fakeKernel) Apply(c *plan.Change, _ time.Time) error {
	k.called("apply")
	k.mu.Lock()
	block := k.block
	k.mu.Unlock()
	if block != nil {
		<-block
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fault("apply"); err != nil {
		return err
	}
	for _, write := range k.writes(c) {
		if err := k.fault("entry"); err != nil {
			return err
		}
		write()
	}
	return nil
}

func (k *fakeKernel) writes(c *plan.Change) (out []func()) {
	for _, e := range c.Endpoints {
		out = append(out, func() { k.endpoints[e.ID] = e })
	}
	for _, s := range c.Services {
		out = append(out, func() {
			k.slots[s.ID] = s.SlotsV4
			for _, f := range s.Frontends() {
				k.fronts[f] = s.ID
			}
		})
	}
	for _, t := range c.Tasks {
		out = append(out, func() { k.tasks[t.NetnsCookie] = t.ID })
	}
	for _, t := range c.DropTasks {
		out = append(out, func() { delete(k.tasks, t.NetnsCookie) })
	}
	for _, f := range c.DropFrontends {
		out = append(out, func() { delete(k.fronts, f) })
	}
	for _, id := range c.DropServices {
		out = append(out, func() { delete(k.slots, id) })
	}
	return out
}

func (k *fakeKernel) Publish() error {
	k.called("attach")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fault("attach")
}

func (k *fakeKernel) Resync(want *plan.Desired) (int, error) {
	k.called("resync")
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fault("resync"); err != nil {
		return 0, err
	}
	n := k.stray
	k.stray = 0
	fronts, tasks := wanted(want)
	for _, changed := range []bool{!maps.Equal(k.fronts, fronts), !maps.Equal(k.tasks, tasks)} {
		if changed {
			n++
		}
	}
	k.fronts, k.tasks = fronts, tasks
	return n, nil
}

func wanted(d *plan.Desired) (map[plan.Frontend]lb.ServiceID, map[uint64]lb.TaskID) {
	fronts, tasks := map[plan.Frontend]lb.ServiceID{}, map[uint64]lb.TaskID{}
	for _, s := range d.Services {
		for _, f := range s.Frontends() {
			fronts[f] = s.ID
		}
	}
	for _, t := range d.Tasks {
		tasks[t.NetnsCookie] = t.ID
	}
	return fronts, tasks
}

func (k *fakeKernel) Active(id lb.EndpointID) uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	return k.active[id]
}

func (k *fakeKernel) setBlock(c chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.block = c
}

func (k *fakeKernel) takeAsked() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.asked
	k.asked = 0
	return n
}

func (k *fakeKernel) setActive(id lb.EndpointID, n uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active[id] = n
}

// holds reports what differs between a plan and the entries.
func (k *fakeKernel) holds(d *plan.Desired) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	fronts, tasks := wanted(d)
	if !maps.Equal(k.fronts, fronts) || !maps.Equal(k.tasks, tasks) {
		return fmt.Errorf("frontends %v, want %v; tasks %v, want %v", k.fronts, fronts, k.tasks, tasks)
	}
	for _, s := range d.Services {
		if !slices.Equal(k.slots[s.ID], s.SlotsV4) {
			return fmt.Errorf("slots of %s are %v, want %v", s.Name, k.slots[s.ID], s.SlotsV4)
		}
		for _, e := range s.Endpoints {
			want := plan.EndpointChange{ID: e.ID, Service: s.ID, Address: e.Address, Weight: e.Weight}
			if k.endpoints[e.ID] != want {
				return fmt.Errorf("endpoint is %v, want %v", k.endpoints[e.ID], want)
			}
		}
	}
	return nil
}

type fakeJournal struct {
	called func(string)

	mu    sync.Mutex
	fault error // of Append
	tight error // of Compact
	bytes []byte
}

func (j *fakeJournal) Append(b []byte) error {
	j.called("append")
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fault != nil {
		return j.fault
	}
	j.bytes = append(j.bytes, b...)
	return nil
}

func (j *fakeJournal) Compact(func() []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tight
}

func (j *fakeJournal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = err
}

func (j *fakeJournal) content() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return bytes.Clone(j.bytes)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), text)
}

// bubble runs a test under a clock that moves only when all wait.
func bubble(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newRig(t)) })
}
