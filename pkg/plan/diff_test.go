package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// planned makes a service with one name and one IPv4 slot per endpoint, whose
// ids count from 10 times its own.
func planned(id lb.ServiceID, name string, vip string, endpoints ...string) *Service {
	s := &Service{
		Service: &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP},
		ID:      id,
		Names:   []Name{{DNSName: name, V4: netip.MustParseAddr(vip), Ports: []uint16{80}}},
	}
	for i, e := range endpoints {
		ep := Endpoint{Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort(e), Weight: 1}, ID: lb.EndpointID(10*int(id) + i)}
		s.Endpoints = append(s.Endpoints, ep)
		s.SlotsV4 = append(s.SlotsV4, ep.ID)
	}
	return s
}

// with is a deep enough copy of a service, changed.
func with(s *Service, change func(*Service)) *Service {
	c, inner := *s, *s.Service
	c.Service, c.Names, c.Endpoints = &inner, slices.Clone(s.Names), slices.Clone(s.Endpoints)
	c.SlotsV4 = slices.Clone(s.SlotsV4)
	change(&c)
	return &c
}

// brief writes a change in one line.
func brief(c *Change) string {
	out := ""
	for _, e := range c.Endpoints {
		out += fmt.Sprintf("+e%d.%d@%s*%d ", e.Service, e.ID, e.Address, e.Weight)
	}
	for _, s := range c.Services {
		out += fmt.Sprintf("+s%d ", s.ID)
	}
	for _, t := range c.Tasks {
		out += fmt.Sprintf("+t%d:%d/%d ", t.ID, t.NetnsCookie, t.CgroupID)
	}
	for _, t := range c.DropTasks {
		out += fmt.Sprintf("-t%d:%d/%d ", t.ID, t.NetnsCookie, t.CgroupID)
	}
	for _, f := range c.DropFrontends {
		out += fmt.Sprintf("-f%s ", f.Address)
	}
	for _, id := range c.DropServices {
		out += fmt.Sprintf("-s%d ", id)
	}
	return out
}

func TestDiff(t *testing.T) {
	a := planned(1, "a", "127.254.0.1", "10.0.0.1:80", "10.0.0.2:80")
	b := planned(2, "b", "127.254.0.2", "10.0.0.3:80")
	web := &Task{Task: lb.Task{Name: "web", NetnsCookie: 7}, ID: 1}
	cron := &Task{Task: lb.Task{Name: "cron", CgroupID: 9}, ID: 2}
	taskWith := func(t *Task, change func(*Task)) *Task { c := *t; change(&c); return &c }
	plan := func(things ...any) *Desired {
		d := &Desired{}
		for _, x := range things {
			switch x := x.(type) {
			case *Service:
				d.Services = append(d.Services, x)
			case *Task:
				d.Tasks = append(d.Tasks, x)
			}
		}
		return d
	}
	for name, test := range map[string]struct {
		prev, next *Desired
		want       string
	}{
		"nothing to nothing":   {nil, plan(), ""},
		"from nothing":         {nil, plan(a, web), "+e1.10@10.0.0.1:80*1 +e1.11@10.0.0.2:80*1 +s1 +t1:7/0 "},
		"same pointers":        {plan(a, b, cron, web), plan(a, b, cron, web), ""},
		"same content":         {plan(a, b), plan(with(a, func(*Service) {}), b), ""},
		"what is not written":  {plan(a), plan(with(a, func(s *Service) { s.Panic, s.Endpoints[0].State, s.Endpoints[0].Reason = true, lb.StateEjected, "x" })), ""},
		"new service":          {plan(a), plan(a, b), "+e2.20@10.0.0.3:80*1 +s2 "},
		"removed service":      {plan(a, b), plan(b), "-f127.254.0.1:80 -s1 "},
		"to nothing":           {plan(a, web), plan(), "-t1:7/0 -f127.254.0.1:80 -s1 "},
		"renamed, its VIP too": {plan(a), plan(planned(2, "b", "127.254.0.2", "10.0.0.1:80")), "+e2.20@10.0.0.1:80*1 +s2 -f127.254.0.1:80 -s1 "},
		"another id":           {plan(a), plan(planned(2, "a", "127.254.0.1", "10.0.0.1:80")), "+e2.20@10.0.0.1:80*1 +s2 -s1 "},
		"VIP moves on":         {plan(a, b), plan(with(b, func(s *Service) { s.Names[0].V4 = a.Names[0].V4 })), "+s2 -f127.254.0.2:80 -s1 "},
		"VIPs are swapped":     {plan(a, b), plan(with(a, func(s *Service) { s.Names[0].V4 = b.Names[0].V4 }), with(b, func(s *Service) { s.Names[0].V4 = a.Names[0].V4 })), "+s1 +s2 "},
		"VIP of a new service": {plan(a), plan(planned(3, "c", "127.254.0.1", "10.0.0.9:80")), "+e3.30@10.0.0.9:80*1 +s3 -s1 "},
		"port of the name":     {plan(a), plan(with(a, func(s *Service) { s.Names[0].Ports = []uint16{81} })), "+s1 -f127.254.0.1:80 "},
		"port more":            {plan(a), plan(with(a, func(s *Service) { s.Names[0].Ports = []uint16{80, 81} })), "+s1 "},
		"IPv6 comes":           {plan(a), plan(with(a, func(s *Service) { s.Names[0].V6 = netip.MustParseAddr("fd63::1") })), "+s1 "},
		"protocol":             {plan(a), plan(with(a, func(s *Service) { s.Protocol = lb.UDP })), "+s1 -f127.254.0.1:80 "},
		"policy":               {plan(a), plan(with(a, func(s *Service) { s.LoadBalancing.Policy = lb.Random })), "+s1 "},
		"HTTP":                 {plan(a), plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{} })), "+s1 "},
		"HTTP no more":         {plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{} })), plan(a), "+s1 "},
		"HTTP goes direct": {plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{} })),
			plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{Direct: true} })), "+s1 "},
		"HTTP's timeout": {plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{} })),
			plan(with(a, func(s *Service) { s.HTTP = &lb.HTTP{RequestTimeout: time.Second} })), ""},
		"namespace id":  {plan(a), plan(with(a, func(s *Service) { s.NamespaceID = 3 })), "+s1 "},
		"slots":         {plan(a), plan(with(a, func(s *Service) { s.SlotsV4 = s.SlotsV4[:1] })), "+s1 "},
		"IPv6 slots":    {plan(a), plan(with(a, func(s *Service) { s.SlotsV6 = s.SlotsV4[:1] })), "+s1 "},
		"weight":        {plan(a), plan(with(a, func(s *Service) { s.Endpoints[1].Weight = 5 })), "+e1.11@10.0.0.2:80*5 "},
		"endpoint's id": {plan(a), plan(with(a, func(s *Service) { s.Endpoints[0].ID = 15; s.SlotsV4[0] = 15 })), "+e1.15@10.0.0.1:80*1 +s1 "},
		"endpoint between": {plan(a), plan(with(a, func(s *Service) {
			s.Endpoints = slices.Insert(s.Endpoints, 1, Endpoint{Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort("10.0.0.1:81"), Weight: 1}, ID: 12})
		})), "+e1.12@10.0.0.1:81*1 "},
		"endpoint gone":       {plan(a), plan(with(a, func(s *Service) { s.Endpoints = s.Endpoints[1:]; s.SlotsV4 = s.SlotsV4[1:] })), "+s1 "},
		"another id and name": {plan(a), plan(with(planned(2, "a", "127.254.0.9", "10.0.0.1:80"), func(*Service) {})), "+e2.20@10.0.0.1:80*1 +s2 -f127.254.0.1:80 -s1 "},
		"id given again":      {plan(a), plan(planned(1, "z", "127.254.0.9", "10.0.0.1:80")), "+e1.10@10.0.0.1:80*1 +s1 -f127.254.0.1:80 "},
		"task renamed":        {plan(web), plan(taskWith(web, func(t *Task) { t.Name, t.ID = "front", 3 })), "+t3:7/0 "},
		"cgroup task renamed": {plan(cron), plan(taskWith(cron, func(t *Task) { t.Name, t.ID = "zap", 3 })), "+t3:0/9 "},
		"tasks swap netns":    {plan(cron, web), plan(taskWith(cron, func(t *Task) { t.CgroupID, t.NetnsCookie = 0, 7 }), taskWith(web, func(t *Task) { t.NetnsCookie, t.CgroupID = 0, 9 })), "+t2:7/0 +t1:0/9 "},
		"new task":            {plan(web), plan(cron, web), "+t2:0/9 "},
		"task ended":          {plan(cron, web), plan(cron), "-t1:7/0 "},
		"task's new netns":    {plan(web), plan(taskWith(web, func(t *Task) { t.NetnsCookie = 8 })), "+t1:8/0 -t1:7/0 "},
		"task to a cgroup":    {plan(web), plan(taskWith(web, func(t *Task) { t.NetnsCookie, t.CgroupID = 0, 5 })), "+t1:0/5 -t1:7/0 "},
		"task's new cgroup":   {plan(cron), plan(taskWith(cron, func(t *Task) { t.CgroupID = 5 })), "+t2:0/5 -t2:0/9 "},
		"task's scope":        {plan(web), plan(taskWith(web, func(t *Task) { t.Scope[0] = 1 })), "+t1:7/0 "},
		"task avoids":         {plan(web), plan(taskWith(web, func(t *Task) { t.Avoid = []lb.EndpointID{10} })), "+t1:7/0 "},
	} {
		t.Run(name, func(t *testing.T) {
			c := Diff(test.prev, test.next)
			if got := brief(c); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if c.Empty() != (test.want == "") {
				t.Errorf("empty is %v", c.Empty())
			}
		})
	}
}

// kernel is what the maps would hold.
type kernel struct {
	*testing.T
	endpoints map[lb.EndpointID]EndpointChange
	slots     map[lb.ServiceID][]lb.EndpointID
	fronts    map[Frontend]lb.ServiceID
	tasks     map[[2]uint64]lb.TaskID // by netns cookie and cgroup
}

// apply writes a change in the order that Change promises, and looks after
// each entry whether a hook would find what it is led to.
func (k *kernel) apply(c *Change) {
	for _, e := range c.Endpoints {
		k.endpoints[e.ID] = e
	}
	for _, s := range c.Services {
		k.slots[s.ID] = slices.Concat(s.SlotsV4, s.SlotsV6)
		for _, f := range s.Frontends() {
			k.fronts[f] = s.ID
			k.check("publishing a frontend")
		}
	}
	for _, t := range c.Tasks {
		k.tasks[[2]uint64{t.NetnsCookie, t.CgroupID}] = t.ID
	}
	for _, t := range c.DropTasks {
		delete(k.tasks, [2]uint64{t.NetnsCookie, t.CgroupID})
	}
	for _, f := range c.DropFrontends {
		delete(k.fronts, f)
		k.check("deleting a frontend")
	}
	for _, id := range c.DropServices {
		delete(k.slots, id)
		k.check("deleting slots")
	}
}

func (k *kernel) check(when string) {
	for f, id := range k.fronts {
		slots, ok := k.slots[id]
		if !ok {
			k.Fatalf("%s: %s names service %d, which has no slots", when, f.Address, id)
		}
		for _, e := range slots {
			if k.endpoints[e].Service != id {
				k.Fatalf("%s: service %d has a slot for endpoint %d of service %d", when, id, e, k.endpoints[e].Service)
			}
		}
	}
}

func (k *kernel) holds(d *Desired) {
	fronts, tasks := map[Frontend]lb.ServiceID{}, map[[2]uint64]lb.TaskID{}
	for _, s := range d.Services {
		for _, f := range s.Frontends() {
			fronts[f] = s.ID
		}
		if !slices.Equal(k.slots[s.ID], slices.Concat(s.SlotsV4, s.SlotsV6)) {
			k.Errorf("slots of %s are %v, want %v %v", s.Name, k.slots[s.ID], s.SlotsV4, s.SlotsV6)
		}
		for _, e := range s.Endpoints {
			if want := (EndpointChange{e.ID, s.ID, e.Address, e.Weight}); k.endpoints[e.ID] != want {
				k.Errorf("endpoint %v, want %v", k.endpoints[e.ID], want)
			}
		}
	}
	for _, t := range d.Tasks {
		tasks[[2]uint64{t.NetnsCookie, t.CgroupID}] = t.ID
	}
	if !maps.Equal(k.fronts, fronts) {
		k.Errorf("frontends are %v, want %v", k.fronts, fronts)
	}
	if len(k.slots) != len(d.Services) {
		k.Errorf("slots of %d services are kept, want %d", len(k.slots), len(d.Services))
	}
	if !maps.Equal(k.tasks, tasks) {
		k.Errorf("tasks are %v, want %v", k.tasks, tasks)
	}
}

// TestDiffOfHistories applies the differences between plans of random
// histories to a model.
func TestDiffOfHistories(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			p := mustNew(t, Config{VIP4: netip.MustParsePrefix("10.9.0.0/27")}, nil) // VIPs are few and move on
			k := &kernel{t, map[lb.EndpointID]EndpointChange{}, map[lb.ServiceID][]lb.EndpointID{}, map[Frontend]lb.ServiceID{}, map[[2]uint64]lb.TaskID{}}
			now := epoch
			var prev *Desired
			for range 100 {
				p.SetCatalog(randomCatalog(rnd))
				p.SetTasks(randomTasks(rnd))
				idle := map[lb.EndpointID]uint32{}
				if prev != nil {
					for _, id := range prev.Watch {
						idle[id] = uint32(rnd.IntN(2))
					}
				}
				p.Observe(nil, nil, idle)
				now = now.Add(time.Duration(rnd.IntN(9)) * time.Second)
				next := p.Step(now)
				if rnd.IntN(4) == 0 {
					continue // it never came into force
				}
				k.apply(Diff(prev, next))
				k.holds(next)
				if t.Failed() {
					return
				}
				prev = next
			}
		})
	}
}

func randomCatalog(rnd *rand.Rand) (out []*lb.Service) {
	for _, name := range []string{"a", "b", "c", "d"} {
		if rnd.IntN(3) == 0 {
			continue
		}
		s := &lb.Service{Name: lb.ServiceName{Namespace: "prod", DiscoveryName: name}, Protocol: lb.TCP, Drain: lb.Drain{Deadline: 5 * time.Second}}
		s.LoadBalancing.Policy = lb.Policy(rnd.IntN(4))
		// Names wander from service to service.
		s.ClientAliases = []lb.ClientAlias{{DNSName: name, Port: uint16(80 + rnd.IntN(2))}, {DNSName: "shared", Port: uint16(80 + rnd.IntN(8))}}
		for i := range 4 {
			if rnd.IntN(2) == 0 {
				addr := netip.AddrFrom4([4]byte{10, 0, name[0], byte(i)})
				if i == 3 {
					addr = netip.MustParseAddr("fd66::" + name)
				}
				s.Endpoints = append(s.Endpoints, lb.Endpoint{Address: netip.AddrPortFrom(addr, 80), Weight: uint16(1 + rnd.IntN(3)), Draining: rnd.IntN(5) == 0})
			}
		}
		out = append(out, s)
	}
	return out
}

func randomTasks(rnd *rand.Rand) (out []lb.Task) {
	turn := rnd.IntN(3)
	for i := range 3 {
		task := lb.Task{Name: fmt.Sprint("task-", i), Namespaces: []string{"prod"}}
		switch rnd.IntN(4) {
		case 0:
			continue
		case 1:
			task.CgroupID = uint64(1 + (i+turn)%3) // what was one task's is another's
		default:
			task.NetnsCookie = uint64(1 + (i+turn)%3)
		}
		out = append(out, task)
	}
	return out
}
