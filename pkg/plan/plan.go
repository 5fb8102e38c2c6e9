// Package plan is the brain: from the catalog, the tasks and what was
// observed it computes what the kernel and the daemon should look like. It is
// pure and deterministic: no I/O, no clock, no goroutine, no log; time comes
// in as an argument. One goroutine owns a Planner.
package plan

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// maxTasks is the highest task id. The kernel's per-task array has 8192
// entries, and entry 0 names nobody.
const maxTasks = 8191

// Config is what a Planner must know of the node. Changing more of it than the
// zone takes a new Planner made from the old one's Snapshot.
type Config struct {
	VIP4 netip.Prefix // /8 to /27; default 127.254.0.0/16
	VIP6 netip.Prefix // a /64; default fd63:6f6e:6e65:6374::/64
	Zone string       // the node's own zone id; "" turns zone preference off

	// The highest ids, so that a kernel array needs one entry more, and the
	// sum of all slot tables. 0 is the most there can be: 4,194,304 ids, and
	// any number of slots.
	MaxEndpoints, MaxServices, MaxSlots int
}

// Planner holds what must be remembered between Steps. Its memory is lean on
// purpose: an endpoint costs its entry in Desired and eight bytes.
type Planner struct {
	cfg     Config
	now     time.Time // of the latest Step; never goes back
	clock   time.Time // the same as the journal has it
	last    *Desired  // nil before the first Step
	journal []byte    // lines not handed out yet
	stirred bool      // something other than time may have changed the plan

	catalog      []*lb.Service // what records were last compared with
	nextCatalog  []*lb.Service
	catalogKnown bool
	tasksInput   []lb.Task
	tasksKnown   bool
	tasksDirty   bool // inputs or namespace ids changed
	strikes      []lb.Strike
	avoiding     bool // some task avoids an endpoint

	records    []*service // sorted by name: listed, left out, or still draining
	restoring  bool       // records come from the journal and no catalog was seen yet
	byID       []*service // by ServiceID
	dirty      []*service
	changed    []*service            // planned anew by this Step
	unsettled  map[*service]struct{} // those that a deadline or a count may change
	troubled   map[*service]struct{} // those with a problem; tried again with every Step
	local      map[*service]struct{} // those with endpoints of local tasks
	localDirty bool                  // what one of them plans changed
	regrouped  bool                  // the set of planned services changed
	slotsInUse int

	endpoints []endpointInfo // by EndpointID
	reasons   map[lb.EndpointID]string
	ejections map[lb.EndpointID][]ejection
	spent     map[caller]uint32                   // failed requests of a run that goes on, as of the end of an ejection
	drains    map[lb.ServiceName][]netip.AddrPort // by command

	namespaces   map[string]*namespace
	tasks        map[string]*task
	taskNames    map[lb.TaskID]string
	taskProblems []string

	vips  vipTable
	ready Frontend

	namespaceIDs, serviceIDs, endpointIDs, taskIDs pool

	scratch scratch
}

type namespace struct {
	id    lb.NamespaceID
	users int
}

// New makes a Planner that goes on where the journal ends. The journal is the
// concatenation of every Desired.Journal of earlier runs, or a Snapshot
// followed by those after it. A last line without its newline was torn by a
// crash and is ignored, so replace the file by the Snapshot before appending
// to it; any other line that does not parse is an error naming it.
func New(cfg Config, journal []byte) (*Planner, error) {
	p := &Planner{
		cfg:          cfg,
		unsettled:    make(map[*service]struct{}),
		troubled:     make(map[*service]struct{}),
		local:        make(map[*service]struct{}),
		endpoints:    make([]endpointInfo, 1),
		byID:         make([]*service, 1),
		reasons:      make(map[lb.EndpointID]string),
		ejections:    make(map[lb.EndpointID][]ejection),
		spent:        make(map[caller]uint32),
		drains:       make(map[lb.ServiceName][]netip.AddrPort),
		namespaces:   make(map[string]*namespace),
		tasks:        make(map[string]*task),
		taskNames:    make(map[lb.TaskID]string),
		namespaceIDs: newPool(lb.MaxNamespaces),
		serviceIDs:   newPool(cfg.MaxServices),
		endpointIDs:  newPool(cfg.MaxEndpoints),
		taskIDs:      newPool(maxTasks),
	}
	if p.cfg.MaxSlots <= 0 {
		p.cfg.MaxSlots = math.MaxInt32
	}
	var err error
	if p.vips, err = newVIPTable(cfg.VIP4, cfg.VIP6); err != nil {
		return nil, err
	}
	p.ready = Frontend{netip.AddrPortFrom(ReadyVIP(cfg.VIP4), readyPort), lb.TCP}
	if err := p.replay(journal); err != nil {
		return nil, fmt.Errorf("read plan journal: %w", err)
	}
	return p, nil
}

// SetCatalog replaces the catalog. services is sorted by name, each name once,
// and must not be written to afterwards; a service that is the same pointer as
// before is unchanged. Until the first call nothing is planned or removed, for
// what the sources list is not known.
func (p *Planner) SetCatalog(services []*lb.Service) {
	p.nextCatalog = services
	p.tasksDirty = p.tasksDirty || !p.catalogKnown // no task was ready
	p.catalogKnown = true
	p.stirred = true
}

// SetTasks replaces the list of local tasks, in any order. Until the first
// call the tasks of the journal keep their ids.
func (p *Planner) SetTasks(tasks []lb.Task) {
	p.tasksInput = slices.Clone(tasks)
	p.tasksKnown = true
	p.tasksDirty = true
	p.stirred = true
}

// SetZone replaces Config.Zone.
func (p *Planner) SetZone(zone string) {
	if zone == p.cfg.Zone {
		return
	}
	p.cfg.Zone = zone
	for _, r := range p.records {
		p.touch(r)
	}
}

// Step plans for what is known at now, which should carry a monotonic clock
// reading. It returns the previous *Desired when nothing changed. Call it
// after inputs changed and when Desired.Wake has come.
func (p *Planner) Step(now time.Time) *Desired {
	if now.Before(p.now) {
		now = p.now
	}
	p.now = now
	if p.last != nil && !p.stirred && (p.last.Wake.IsZero() || now.Before(p.last.Wake)) {
		return p.last
	}
	if p.last == nil {
		p.localise()
	}
	p.clock = now
	p.freeIDs()
	p.admitTasks()
	p.takeStrikes()
	if p.catalogKnown {
		p.planServices()
	}
	next := p.assemble()
	p.stirred = false
	return next
}

// planServices brings the records in line with the catalog and plans those
// that something happened to. Each stage walks them in name order, so that
// ids and VIPs do not depend on the order of events.
func (p *Planner) planServices() {
	p.compareCatalog()
	for r := range p.unsettled {
		if !r.wake.IsZero() && !p.now.Before(r.wake) {
			p.touch(r)
		}
	}
	for r := range p.troubled {
		p.touch(r)
	}
	slices.SortFunc(p.dirty, compareRecords)
	for _, r := range p.dirty {
		p.admit(r)
	}
	p.nameServices()
	retired := false
	for _, r := range p.dirty {
		r.dirty = false
		if r.id != 0 {
			p.planService(r)
		}
		if !r.listed && len(r.endpoints) == 0 {
			p.retire(r)
			retired = true
		}
	}
	clear(p.dirty)
	p.dirty = p.dirty[:0]
	if cap(p.scratch.claimed) > 1024 {
		p.scratch = scratch{} // a first plan made it large
	}
	p.restoring = false
	if retired {
		p.records = slices.DeleteFunc(p.records, func(r *service) bool { return r.retired })
	}
}

// touch marks a service to be planned with the next Step.
func (p *Planner) touch(r *service) {
	p.stirred = true
	if !r.dirty {
		r.dirty = true
		p.dirty = append(p.dirty, r)
	}
}

// localise gives deadlines from the journal, which are wall clock, the
// monotonic clock of this run. Had the clock been set back between the runs,
// they would be further away than they were: they are moved along.
func (p *Planner) localise() {
	back := min(0, p.now.Sub(p.clock))
	local := func(t *time.Time) {
		if !t.IsZero() {
			*t = p.now.Add(t.Sub(p.now) + back)
		}
	}
	for _, r := range p.records {
		for i := range r.endpoints {
			local(&r.endpoints[i].DrainUntil)
		}
	}
	for _, list := range p.ejections {
		for i := range list {
			local(&list[i].until)
		}
	}
	for _, ids := range []*pool{&p.namespaceIDs, &p.serviceIDs, &p.endpointIDs, &p.taskIDs} {
		for i := range ids.held {
			local(&ids.held[i].until)
		}
	}
}
