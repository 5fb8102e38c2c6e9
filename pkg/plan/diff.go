package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"connectd/pkg/lb"
)

// Change is what must be written to get from one Desired to another. Within
// it the order of application is fixed: endpoints, services (slots before
// frontends), tasks; then what goes: tasks, frontends. So nothing is published
// before what it names, and nothing is deleted while something names it.
type Change struct {
	Endpoints     []EndpointChange
	Services      []*Service // whose slots, policy or frontends differ
	Ready         Frontend   // Desired.Ready, if it differs
	DropFrontends []Frontend // named by no service any more
	DropServices  []lb.ServiceID
	Tasks         []*Task
	DropTasks     []*Task // whose network namespace or cgroup is no task's any more
}

// EndpointChange is an endpoint whose entry must be written.
type EndpointChange struct {
	ID      lb.EndpointID
	Service lb.ServiceID
	Address netip.AddrPort
	Weight  uint16
}

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool {
	return len(c.Endpoints)+len(c.Services)+len(c.DropFrontends)+len(c.DropServices)+len(c.Tasks)+len(c.DropTasks) == 0 && !c.Ready.Address.IsValid()
}

// Diff compares two plans. prev may be nil: then everything in next is new and
// nothing is dropped, for what the kernel holds is not known. Pointer-equal
// entries are skipped.
func Diff(prev, next *Desired) *Change {
	c := &Change{}
	if prev == nil {
		prev = &Desired{}
	}
	if prev.Ready != next.Ready {
		c.Ready = next.Ready
	}
	merge(prev.Services, next.Services, func(a, b *Service) int { return a.Name.Compare(b.Name) }, c.service)
	merge(prev.Tasks, next.Tasks, func(a, b *Task) int { return cmp.Compare(a.Name, b.Name) }, c.task)
	c.keepTaken()
	return c
}

// merge walks two sorted lists and calls visit for each pair that is not
// pointer-equal; one side is nil where the other stands alone.
func merge[T any](prev, next []*T, compare func(a, b *T) int, visit func(prev, next *T)) {
	i, j := 0, 0
	for i < len(prev) || j < len(next) {
		switch {
		case j == len(next):
			visit(prev[i], nil)
			i++
		case i == len(prev):
			visit(nil, next[j])
			j++
		case prev[i] == next[j]:
			i++
			j++
		default:
			order := compare(prev[i], next[j])
			switch {
			case order < 0:
				visit(prev[i], nil)
				i++
			case order > 0:
				visit(nil, next[j])
				j++
			default:
				visit(prev[i], next[j])
				i++
				j++
			}
		}
	}
}

func (c *Change) service(prev, next *Service) {
	if next == nil {
		c.DropFrontends = append(c.DropFrontends, prev.Frontends()...)
		c.DropServices = append(c.DropServices, prev.ID)
		return
	}
	c.endpoints(prev, next)
	if prev == nil || prev.ID != next.ID {
		c.Services = append(c.Services, next)
		if prev != nil {
			c.DropFrontends = append(c.DropFrontends, prev.Frontends()...)
			c.DropServices = append(c.DropServices, prev.ID)
		}
		return
	}
	fronts, before := next.Frontends(), prev.Frontends()
	if !slices.Equal(prev.SlotsV4, next.SlotsV4) || !slices.Equal(prev.SlotsV6, next.SlotsV6) ||
		prev.LoadBalancing.Policy != next.LoadBalancing.Policy || prev.NamespaceID != next.NamespaceID ||
		prev.Proxied() != next.Proxied() || (prev.HTTP == nil) != (next.HTTP == nil) || !slices.Equal(before, fronts) {
		c.Services = append(c.Services, next)
	}
	for _, f := range before {
		if !slices.Contains(fronts, f) {
			c.DropFrontends = append(c.DropFrontends, f)
		}
	}
}

// endpoints lists what is new or other than before; both lists are sorted by
// address.
func (c *Change) endpoints(prev, next *Service) {
	var before []Endpoint
	if prev != nil && prev.ID == next.ID {
		before = prev.Endpoints
	}
	i := 0
	for k := range next.Endpoints {
		e := &next.Endpoints[k]
		for i < len(before) && before[i].Address.Compare(e.Address) < 0 {
			i++
		}
		if i < len(before) && before[i].ID == e.ID && before[i].Address == e.Address && before[i].Weight == e.Weight {
			continue
		}
		c.Endpoints = append(c.Endpoints, EndpointChange{e.ID, next.ID, e.Address, e.Weight})
	}
}

func (c *Change) task(prev, next *Task) {
	if prev != nil && (next == nil || prev.ID != next.ID || prev.NetnsCookie != next.NetnsCookie || prev.CgroupID != next.CgroupID) {
		c.DropTasks = append(c.DropTasks, prev)
	}
	if next != nil {
		c.Tasks = append(c.Tasks, next)
	}
}

// keepTaken takes off the lists of what is to be dropped whatever next names
// under another owner: a frontend of another service, an id that was given
// again, the network namespace or cgroup of a task under another name. What is
// taken over differs from before, so it is in the lists of what is written.
func (c *Change) keepTaken() {
	if len(c.DropServices)+len(c.DropFrontends) > 0 {
		fronts, ids := make(map[Frontend]bool), make(map[lb.ServiceID]bool)
		for _, s := range c.Services {
			ids[s.ID] = true
			for _, f := range s.Frontends() {
				fronts[f] = true
			}
		}
		c.DropFrontends = slices.DeleteFunc(c.DropFrontends, func(f Frontend) bool { return fronts[f] })
		c.DropServices = slices.DeleteFunc(c.DropServices, func(id lb.ServiceID) bool { return ids[id] })
	}
	if len(c.DropTasks) > 0 {
		type key struct{ netns, cgroup uint64 }
		keys := make(map[key]bool, len(c.Tasks))
		for _, t := range c.Tasks {
			keys[key{t.NetnsCookie, t.CgroupID}] = true
		}
		c.DropTasks = slices.DeleteFunc(c.DropTasks, func(t *Task) bool { return keys[key{t.NetnsCookie, t.CgroupID}] })
	}
}

// Frontends lists the VIP:port pairs of the service, sorted by name.
func (s *Service) Frontends() []Frontend {
	var out []Frontend
	for _, n := range s.Names {
		for _, vip := range []netip.Addr{n.V4, n.V6} {
			if !vip.IsValid() {
				continue
			}
			for _, port := range n.Ports {
				out = append(out, Frontend{netip.AddrPortFrom(vip, port), s.Protocol})
			}
		}
	}
	return out
}
