package main

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"connectd/pkg/catalog/cloudmap"
	"connectd/pkg/lb"
)

const account = "111122223333"

// fleet is nodes, their tasks, and what is to happen to them.
type fleet struct {
	scenario
	cloud   *cloud
	random  *rand.Rand
	nodes   []*simNode
	tasks   [][]*simTask // by service
	agenda  agenda
	serial  int
	watched map[netip.AddrPort]*arrival
	delays  []time.Duration // from ready to seen by a node that calls the service
}

// simNode is one node; its source is the real one.
type simNode struct {
	name    string
	source  *cloudmap.Source
	tasks   []*simTask
	reads   bool
	demands []string
	changed bool
	wake    time.Time
	index   int // in the heap
}

type simTask struct {
	id, service string
	address     netip.Addr
	node        *simNode
	state       cloudmap.State
}

// arrival is a task that others are to learn of.
type arrival struct {
	at    time.Time
	seers []*simNode
}

// appointment is something that happens at a time: a node's next look, or an
// event.
type appointment struct {
	at   time.Time
	node *simNode
	do   func()
}

type agenda []*appointment

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a agenda) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)        { *a = append(*a, x.(*appointment)) }
func (a *agenda) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

var begin = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func simulate(ctx context.Context, sc scenario) (result, error) {
	f := &fleet{scenario: sc, cloud: newCloud(begin), random: rand.New(rand.NewPCG(3, uint64(sc.nodes*1000+sc.services))), watched: map[netip.AddrPort]*arrival{}}
	if err := f.populate(); err != nil {
		return result{}, err
	}
	f.run(ctx, begin.Add(startLength))
	r := result{scenario: sc, start: f.cloud.counts, peakScale: float64(sc.nodes) / float64(sc.sample)}
	f.cloud.counts = map[string]*count{}
	f.delays = nil
	f.run(ctx, begin.Add(startLength+sc.length))
	r.steady, r.delays = f.cloud.counts, f.delays
	r.instances, r.largest = f.cloud.instances()
	slices.Sort(r.delays)
	return r, nil
}

// populate makes the nodes and their tasks, all starting at once, and the
// deployments to come.
func (f *fleet) populate() error {
	for i := range f.scenario.nodes {
		n := &simNode{name: fmt.Sprintf("i-%05d", i), reads: i < f.sample}
		api := &client{cloud: f.cloud, counted: n.reads}
		params := cloudmap.Params{
			API: api, ECS: api, Node: n.name, Prefix: "cd--", Register: true, CallsPerSecond: f.calls, Now: func() time.Time { return f.cloud.now },
			Namespaces: func() []cloudmap.Namespace { return []cloudmap.Namespace{{Name: namespace}} },
			Changed:    func() { n.changed = true },
			Instance:   func() string { return "arn:aws:ecs:us-east-1:" + account + ":container-instance/main/" + n.name },
		}
		if !n.reads {
			api.alone, params.ECS, params.PollEvery = n.name, nil, time.Hour
		}
		var err error
		if n.source, err = cloudmap.New(params); err != nil {
			return err
		}
		for _, k := range f.random.Perm(f.services)[:f.demand] {
			n.demands = append(n.demands, serviceName(k))
		}
		f.nodes = append(f.nodes, n)
	}
	f.tasks = make([][]*simTask, f.services)
	for k := range f.services {
		for range f.perService {
			f.tasks[k] = append(f.tasks[k], f.launch(k, f.nodes[f.random.IntN(len(f.nodes))], cloudmap.Healthy))
		}
		for d := range f.deploys {
			first := begin.Add(startLength).Add(time.Duration((float64(d) + f.random.Float64()) / float64(f.deploys) * float64(24*time.Hour)))
			f.at(first, func() { f.deploy(k, 0) })
		}
	}
	for _, n := range f.nodes {
		n.offer()
		n.wake = begin.Add(time.Duration(f.random.IntN(1000)) * time.Millisecond)
		f.visit(n, n.wake)
		if n.reads {
			f.at(begin.Add(time.Duration(10+f.random.IntN(60))*time.Second), func() { f.use(n) })
		}
	}
	return nil
}

func serviceName(k int) string { return fmt.Sprintf("service-%03d", k) }

func (f *fleet) launch(k int, n *simNode, state cloudmap.State) *simTask {
	f.serial++
	t := &simTask{
		id: fmt.Sprintf("%032x", f.serial), service: serviceName(k), node: n, state: state,
		address: netip.AddrFrom4([4]byte{10, byte(f.serial >> 16), byte(f.serial >> 8), byte(f.serial)}),
	}
	n.tasks = append(n.tasks, t)
	return t
}

// offer tells a node's source what its tasks serve.
func (n *simNode) offer() {
	var list []cloudmap.Offer
	for _, t := range n.tasks {
		s := &lb.Service{Name: lb.ServiceName{Namespace: namespace, DiscoveryName: t.service}, Protocol: lb.TCP, ClientAliases: []lb.ClientAlias{{DNSName: t.service, Port: 80}}}
		list = append(list, cloudmap.Offer{
			ID: t.id, Service: s, Task: "arn:aws:ecs:us-east-1:" + account + ":task/main/" + t.id, Cluster: "main", ECSService: t.service,
			Family: t.service, V4: t.address, Port: 8080, State: t.state,
		})
	}
	n.source.Offer(list, true)
}

// use lets a node's tasks call what they call, once a minute.
func (f *fleet) use(n *simNode) {
	for _, name := range n.demands {
		n.source.Demand(name, []string{namespace})
	}
	f.visit(n, f.cloud.now)
	f.at(f.cloud.now.Add(time.Minute), func() { f.use(n) })
}

// deploy replaces the task number i of a service, and then the next: the new
// one is ready, the old one drains for 30 s and goes.
func (f *fleet) deploy(k, i int) {
	if i == len(f.tasks[k]) {
		return
	}
	old := f.tasks[k][i]
	fresh := f.launch(k, old.node, cloudmap.Healthy)
	f.tasks[k][i] = fresh
	old.state = cloudmap.Draining
	f.watch(fresh)
	f.tell(old.node)
	f.at(f.cloud.now.Add(30*time.Second), func() {
		old.node.tasks = slices.DeleteFunc(old.node.tasks, func(t *simTask) bool { return t == old })
		f.tell(old.node)
	})
	f.at(f.cloud.now.Add(f.each), func() { f.deploy(k, i+1) })
}

func (f *fleet) tell(n *simNode) {
	n.offer()
	f.visit(n, f.cloud.now)
}

// watch notes when nodes see a task that call its service.
func (f *fleet) watch(t *simTask) {
	a := &arrival{at: f.cloud.now}
	for _, n := range f.nodes[:f.sample] {
		if n != t.node && slices.Contains(n.demands, t.service) && len(a.seers) < 20 {
			a.seers = append(a.seers, n)
		}
	}
	f.watched[netip.AddrPortFrom(t.address, 8080)] = a
}

func (f *fleet) look(n *simNode) {
	if n.changed = false; len(f.watched) == 0 {
		return
	}
	services, _ := n.source.Snapshot()
	for _, s := range services {
		for _, e := range s.Endpoints {
			a := f.watched[e.Address]
			if a == nil {
				continue
			}
			if i := slices.Index(a.seers, n); i >= 0 {
				f.delays = append(f.delays, f.cloud.now.Sub(a.at))
				if a.seers = slices.Delete(a.seers, i, i+1); len(a.seers) == 0 {
					delete(f.watched, e.Address)
				}
			}
		}
	}
}

func (f *fleet) at(t time.Time, do func()) { heap.Push(&f.agenda, &appointment{at: t, do: do}) }

func (f *fleet) visit(n *simNode, at time.Time) {
	n.wake = at
	heap.Push(&f.agenda, &appointment{at: at, node: n})
}

// run lets time pass until end. A call takes 50 ms.
func (f *fleet) run(ctx context.Context, end time.Time) {
	for len(f.agenda) > 0 && !f.agenda[0].at.After(end) {
		a := heap.Pop(&f.agenda).(*appointment)
		if a.at.After(f.cloud.now) {
			f.cloud.now = a.at
		}
		if a.node == nil {
			a.do()
			continue
		}
		n := a.node
		if n.wake.After(a.at) || n.wake.Before(a.at) {
			continue // it has another appointment by now
		}
		wake, called := n.source.Step(ctx)
		if called {
			wake = f.cloud.now.Add(50 * time.Millisecond)
		}
		if n.changed && n.reads {
			f.look(n)
		}
		f.visit(n, wake)
	}
	f.cloud.now = end
}
