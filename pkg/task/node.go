package task

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
)

const (
	// restInterval is how often a task is looked at when all is settled:
	// sockets, addresses and resolv.conf files give no event. With more than
	// looksPerSecond tasks it is longer, for a look takes 0.2 ms.
	restInterval   = time.Second
	looksPerSecond = 100
	// eagerInterval is the same while something is awaited, such as a port
	// that a task has yet to listen on; it doubles up to the former.
	eagerInterval = 5 * time.Millisecond
	// arrivalTime is how long after the first container of a task others may
	// come, each of which waits for its image, before their absence is a
	// problem.
	arrivalTime = 2 * time.Minute
	// listenGrace is how long nobody may listen on a port, after a container's
	// start or the end of who did, before that is a problem.
	listenGrace = 30 * time.Second
)

// Lookup answers what labels leave open. ok is false while the answer is not
// known: then it is asked for, and Node.Look is called once it is there.
type Lookup interface {
	PortMappings(taskDefinition string) (mappings []lb.PortMapping, ok bool, err error) // "family:revision"
	DefaultNamespace(cluster string) (name string, ok bool, err error)
	NamespaceName(arn string) (name string, ok bool, err error)
	Service(taskARN, cluster string) (name string, ok bool, err error)
}

// NodeParams are what a Node needs.
type NodeParams struct {
	Log        *slog.Logger
	CgroupRoot string                              // of the cgroup2 tree
	Cookie     func(*netns.Handle) (uint64, error) // of a network namespace
	ResolvConf func(path string) ([]netip.Addr, []string, error)
	Containers func() (list []docker.Container, known bool)
	Lookup     Lookup                    // nil: nothing can be looked up
	Address    func() (Addresses, error) // of the node
	Zone       string                    // availability zone id of the node, "" is unknown
	Same       func(a, b *lb.Service) bool
	Memory     string        // file that keeps the containers for the next start; "" is none
	Changed    func()        // Tasks, Services or Problems return something new
	Report     func(Problem) // each once, as long as it stands
}

// Node is the ECS tasks of this node: it groups containers into tasks, says
// what each joins as, and holds their network namespaces open until they end.
type Node struct {
	NodeParams
	wake chan struct{}

	// Run's own.
	members map[string]*member // by task ARN
	told    map[Problem]bool
	written []byte // what Memory holds
	wrote   time.Time
	// recalled are the containers that an earlier daemon knew.
	recalled []docker.Container
	found    chan struct{} // closed when it is known for the first time what runs

	mu      sync.Mutex
	policy  join.Policy
	leaving bool // the node is going away: all that is served drains
	zone    string
	seen    snapshot
}

// snapshot is what Run found last; its slices are never written to.
type snapshot struct {
	known    bool // Docker has answered
	tasks    []lb.Task
	services []*lb.Service
	problems []Problem
	spaces   map[string]*netns.Handle  // by task name; nil: the node's own
	inner    map[netip.AddrPort]uint16 // the port that a task listens on, by the address that it is reached by
	waiting  map[string]string         // by task name: what is not known yet of what it serves
}

// Problem is why a task, or something that it asks for, is not in force.
type Problem struct {
	Task   string // lb.Task.Name, or what it would be
	Field  string // "label connectd.ports: [0].name"
	Reason string // one of Reasons
	Detail string
	Note   bool // in force, but not all that was asked for
}

// NewNode returns a Node that knows no task until Run. It reads what an earlier
// one has remembered.
func NewNode(p NodeParams) *Node {
	n := &Node{NodeParams: p, wake: make(chan struct{}, 1), members: map[string]*member{}, told: map[Problem]bool{}, found: make(chan struct{}), zone: p.Zone}
	n.recall()
	return n
}

// Recalls says whether an earlier Node has left containers that may still live:
// then it is soon known what runs, whether Docker is there or not.
func (n *Node) Recalls() bool { return len(n.recalled) > 0 }

// SetPolicy replaces who may join as what.
func (n *Node) SetPolicy(p join.Policy) {
	n.mu.Lock()
	n.policy = p
	n.mu.Unlock()
	n.Look()
}

// SetLeaving says that the node is going away, or is not after all.
func (n *Node) SetLeaving(leaving bool) {
	n.mu.Lock()
	n.leaving = leaving
	n.mu.Unlock()
	n.Look()
}

// SetZone replaces NodeParams.Zone.
func (n *Node) SetZone(zone string) {
	n.mu.Lock()
	n.zone = zone
	n.mu.Unlock()
	n.Look()
}

// Look has the tasks looked at again. It does not wait.
func (n *Node) Look() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run looks at the tasks whenever something happens until ctx ends, then lets
// go of their namespaces.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			n.rememberLast()
			return nil
		case <-n.wake:
		case <-timer.C:
		}
		changed, next := n.refresh(time.Now())
		if changed {
			n.Changed()
		}
		timer.Reset(time.Until(next))
	}
}

// refresh looks at the tasks of which something is new, and at those that are
// due: 500 that start within seconds make thousands of events, and each look
// reads files. next is when the next one is due.
func (n *Node) refresh(now time.Time) (changed bool, next time.Time) {
	next = now.Add(restInterval)
	list, known := n.containers(now)
	if !known {
		return false, next
	}
	groups := map[string][]docker.Container{}
	for _, c := range list {
		if arn := c.Labels[labelTask]; arn != "" {
			groups[arn] = append(groups[arn], c)
		}
	}
	n.mu.Lock()
	policy, leaving, zone := n.policy, n.leaving, n.zone
	n.mu.Unlock()
	rest := max(restInterval, time.Duration(len(groups))*time.Second/looksPerSecond)
	for arn, containers := range groups {
		m := n.members[arn]
		if m == nil {
			m = newMember(arn, containers)
			n.members[arn] = m
		}
		if m.leaving != leaving || m.zone != zone {
			m.leaving, m.zone, m.due = leaving, zone, now
		}
		if m.isDue(containers, policy, now) {
			settled := m.update(n, containers, policy, now)
			m.schedule(containers, settled, rest, now)
		}
		if m.due.Before(next) {
			next = m.due
		}
	}
	var ended []*member
	for arn, m := range n.members {
		if groups[arn] == nil {
			ended = append(ended, m)
			delete(n.members, arn)
		}
	}
	changed = n.show()
	for _, m := range ended {
		m.close()
	}
	return changed, next
}

// show makes what the members are now what others see.
func (n *Node) show() (changed bool) {
	next := snapshot{known: true, spaces: map[string]*netns.Handle{}, waiting: map[string]string{}, inner: map[netip.AddrPort]uint16{}}
	parts := map[*lb.Service]time.Time{}
	for _, m := range n.members {
		for _, p := range m.places {
			if p.task.Name == "" || !m.joined.Client {
				continue
			}
			next.tasks = append(next.tasks, p.task)
			next.spaces[p.task.Name] = p.ns
			if m.joined.NeedsPorts {
				next.waiting[p.task.Name] = "its ports are looked up in the task definition"
			}
			if m.joined.Awaits {
				next.waiting[p.task.Name] = "a container whose port it serves is not there yet"
			}
		}
		for _, s := range m.services {
			next.services = append(next.services, s)
			parts[s] = m.started
		}
		maps.Copy(next.inner, m.inner)
		next.problems = append(next.problems, m.problems...)
	}
	slices.SortFunc(next.tasks, func(a, b lb.Task) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(next.services, func(a, b *lb.Service) int {
		// A name's newest task goes first: its settings are those of the
		// deployment that is under way.
		if c := a.Name.Compare(b.Name); c != 0 {
			return c
		}
		if c := parts[b].Compare(parts[a]); c != 0 {
			return c
		}
		return compareAddresses(a, b)
	})
	slices.SortFunc(next.problems, func(a, b Problem) int {
		return strings.Compare(a.Task+"\x00"+a.Field+"\x00"+a.Detail, b.Task+"\x00"+b.Field+"\x00"+b.Detail)
	})
	n.mu.Lock()
	last := n.seen
	changed = !last.known || !slices.EqualFunc(last.tasks, next.tasks, sameTask) || !slices.Equal(last.services, next.services) ||
		!slices.Equal(last.problems, next.problems) || !maps.Equal(last.spaces, next.spaces)
	if slices.Equal(last.services, next.services) {
		next.services = last.services // Merge looks at the slice first
	}
	n.seen = next
	n.mu.Unlock()
	if !last.known {
		close(n.found)
	}
	n.tell(next.problems)
	return changed
}

func compareAddresses(a, b *lb.Service) int {
	if len(a.Endpoints) == 0 || len(b.Endpoints) == 0 {
		return len(a.Endpoints) - len(b.Endpoints)
	}
	return a.Endpoints[0].Address.Compare(b.Endpoints[0].Address)
}

// tell reports what is new.
func (n *Node) tell(problems []Problem) {
	told := make(map[Problem]bool, len(problems))
	for _, p := range problems {
		if !n.told[p] && !told[p] {
			n.Report(p)
		}
		told[p] = true
	}
	n.told = told
}

// Tasks returns the tasks that are clients, sorted by name.
func (n *Node) Tasks() []lb.Task { return n.now().tasks }

// Services returns what tasks serve, a part for each task, sorted by name and
// then the newest first. It is the same slice until something changes.
func (n *Node) Services() []*lb.Service { return n.now().services }

// Problems returns what is not as tasks ask for, sorted by task.
func (n *Node) Problems() []Problem { return n.now().problems }

// Found is closed once it is known what runs.
func (n *Node) Found() <-chan struct{} { return n.found }

// ListensAt returns the port that a task itself listens on, which behind a
// published one is another.
func (n *Node) ListensAt(endpoint netip.AddrPort) (port uint16, ok bool) {
	port, ok = n.now().inner[endpoint]
	return port, ok
}

// Waiting says what is not known yet of what a task serves; "" is nothing.
func (n *Node) Waiting(task string) string { return n.now().waiting[task] }

// Known says whether Docker has ever said what runs.
func (n *Node) Known() bool { return n.now().known }

// Namespace returns the network namespace of a task; nil is the node's own.
func (n *Node) Namespace(name string) (ns *netns.Handle, ok bool) {
	ns, ok = n.now().spaces[name]
	return ns, ok
}

// ByCookie returns the namespace with a cookie, if it is a task's.
func (n *Node) ByCookie(cookie uint64) (ns *netns.Handle, ok bool) {
	seen := n.now()
	for i := range seen.tasks {
		if t := &seen.tasks[i]; t.NetnsCookie == cookie && cookie != 0 {
			return seen.spaces[t.Name], true
		}
	}
	return nil, false
}

func (n *Node) now() snapshot {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen
}

func (n *Node) close() {
	for _, m := range n.members {
		m.close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = snapshot{}
}
