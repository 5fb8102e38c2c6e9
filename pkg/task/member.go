package task

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
)

// Labels of the ECS agent (agent/engine/docker_task_engine.go).
const (
	labelTask      = "com.amazonaws.ecs.task-arn"
	labelContainer = "com.amazonaws.ecs.container-name"
	labelFamily    = "com.amazonaws.ecs.task-definition-family"
	labelRevision  = "com.amazonaws.ecs.task-definition-version"
	labelCluster   = "com.amazonaws.ecs.cluster"

	// pausePrefix begins the names of containers that hold a network
	// namespace for others; with Service Connect in bridge mode
	// "-<container>" follows.
	pausePrefix = "~internal~ecs~pause"
)

// member is one ECS task, owned by Node.Run.
type member struct {
	name     string // family/id
	ecs      *lb.ECSTask
	started  time.Time // of its first container
	places   map[string]*place
	joined   join.Result
	services []*lb.Service
	inner    map[netip.AddrPort]uint16
	problems []Problem

	lookup   error    // why what the labels leave open cannot be looked up
	decoded  []string // ids of the containers that joined was decoded from
	policy   join.Policy
	healthy  map[string]bool              // containers whose own check once passed, by id
	silent   map[netip.AddrPort]time.Time // since when nobody listens at an endpoint
	leaving  bool                         // with its node
	zone     string                       // of its node
	seen     []docker.Container
	due      time.Time     // when to look again with nothing new
	pause    time.Duration // before that
	draining time.Time     // when Docker sent the first stop signal; zero: it did not
}

func newMember(arn string, containers []docker.Container) *member {
	l := containers[0].Labels
	id := arn[strings.LastIndexByte(arn, '/')+1:]
	return &member{
		name:   l[labelFamily] + "/" + id,
		ecs:    &lb.ECSTask{ARN: arn, Cluster: l[labelCluster], Family: l[labelFamily], Revision: l[labelRevision]},
		places: map[string]*place{}, healthy: map[string]bool{}, silent: map[netip.AddrPort]time.Time{},
	}
}

// update brings the task up to date. settled is false while something is
// awaited.
func (m *member) update(n *Node, containers []docker.Container, policy join.Policy, now time.Time) (settled bool) {
	for _, c := range containers {
		if m.started.IsZero() || !c.Started.IsZero() && c.Started.Before(m.started) {
			m.started = c.Started
		}
	}
	if m.started.IsZero() {
		m.started = now
	}
	for _, c := range containers {
		if c.Health == "healthy" {
			m.healthy[c.ID] = true
		}
	}
	m.join(n, containers, policy, now)
	m.drain(containers, now)
	m.problems = m.problems[:0:0]
	m.note(m.joined.Problems, false)
	m.note(m.joined.Notes, true)
	if m.lookup != nil {
		m.problem("", ReasonLookup, "look up what the labels leave open: %s", m.lookup)
	}
	spots := arrange(m, containers)
	settled = m.take(n, spots)
	return m.serve(n, spots, now) && settled
}

// isDue says whether a look may find something new.
func (m *member) isDue(containers []docker.Container, policy join.Policy, now time.Time) bool {
	same := slices.EqualFunc(m.seen, containers, func(a, b docker.Container) bool { return a.Equal(&b) })
	return !same || !m.policy.Equal(policy) || m.isOpen() || !now.Before(m.due)
}

// schedule says when to look again. What is awaited is soon there or takes
// long.
func (m *member) schedule(containers []docker.Container, settled bool, rest time.Duration, now time.Time) {
	same := slices.EqualFunc(m.seen, containers, func(a, b docker.Container) bool { return a.Equal(&b) })
	switch {
	case settled:
		m.pause = rest
	case !same || m.pause == 0:
		m.pause = eagerInterval
	default:
		m.pause = min(2*m.pause, restInterval)
	}
	m.seen, m.due = containers, now.Add(m.pause)
}

// isOpen says whether what the labels leave open is awaited.
func (m *member) isOpen() bool {
	return m.joined.Awaits || m.joined.NeedsPorts || m.joined.NeedsNamespace != "" || m.lookup != nil
}

func (m *member) note(problems []join.Problem, note bool) {
	for _, p := range problems {
		m.problems = append(m.problems, Problem{Task: m.name, Field: p.Field, Reason: p.Reason, Detail: p.Detail, Note: note})
	}
}

// join decodes the labels, unless nothing that matters has changed.
func (m *member) join(n *Node, containers []docker.Container, policy join.Policy, now time.Time) {
	var ids []string
	t := join.Task{Family: m.ecs.Family, Arriving: now.Sub(m.started) < arrivalTime}
	for _, c := range containers {
		if isPause(c) {
			continue
		}
		ids = append(ids, c.ID)
		t.Containers = append(t.Containers, join.Container{Name: c.Labels[labelContainer], Labels: c.Labels, ImageLabels: c.ImageLabels})
	}
	// A container that goes takes nothing back: ECS removes them one by one.
	known := len(m.decoded) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(m.decoded, id) })
	if !m.isOpen() && known && m.policy.Equal(policy) {
		m.lookService(n)
		return
	}
	m.joined, m.decoded, m.policy = join.Decode(t, policy), ids, policy
	if m.lookup = m.ask(n, &t); m.lookup == nil && (m.joined.NeedsPorts || m.joined.NeedsNamespace != "") {
		m.joined = join.Decode(t, policy)
	}
	m.lookService(n)
}

var errNoLookup = errors.New("ECS is not asked here, say it in the labels")

// ask looks up what the labels leave open. It does not wait: what is not known
// yet is left out, and Look is called once it is. The error says why it
// cannot be known.
func (m *member) ask(n *Node, t *join.Task) (err error) {
	if !m.joined.NeedsPorts && m.joined.NeedsNamespace == "" {
		return nil
	}
	if n.Lookup == nil {
		return errNoLookup
	}
	var failed error
	t.NamespaceName = func(arn string) (string, bool) {
		name, ok, err := n.Lookup.NamespaceName(arn)
		failed = errors.Join(failed, err)
		return name, ok
	}
	if m.joined.NeedsPorts {
		t.PortMappings, t.PortsKnown, err = n.Lookup.PortMappings(m.ecs.Family + ":" + m.ecs.Revision)
		failed = errors.Join(failed, err)
	}
	if m.joined.NeedsNamespace == join.Default {
		t.DefaultNamespace, t.DefaultKnown, err = n.Lookup.DefaultNamespace(m.ecs.Cluster)
		failed = errors.Join(failed, err)
	}
	return failed
}

// lookService asks which ECS service started the task, for metrics and the
// registry; nothing waits for it.
func (m *member) lookService(n *Node) {
	if n.Lookup == nil || m.ecs.Service != "" || !m.joined.Client {
		return
	}
	if name, ok, _ := n.Lookup.Service(m.ecs.ARN, m.ecs.Cluster); ok && name != "" {
		with := *m.ecs
		with.Service = name
		m.ecs = &with
	}
}

// drain notes that the task is on its way out: once Docker has sent a stop
// signal to one of its containers ECS stops them all. A container that started
// after that says otherwise.
func (m *member) drain(containers []docker.Container, now time.Time) {
	for _, c := range containers {
		switch {
		case c.Stopping && m.draining.IsZero():
			m.draining = now
		case !c.Stopping && c.State == docker.Running && c.Started.After(m.draining):
			if !slices.ContainsFunc(containers, func(c docker.Container) bool { return c.Stopping }) {
				m.draining = time.Time{}
			}
		}
	}
}

func (m *member) close() {
	for _, p := range m.places {
		p.close()
	}
}

func isPause(c docker.Container) bool {
	return strings.HasPrefix(c.Labels[labelContainer], pausePrefix)
}

// spot is where some of a task's containers run: a network namespace, or a
// cgroup on the node's own.
type spot struct {
	key        string
	name       string // of the lb.Task
	owner      docker.Container
	containers []docker.Container
	host       bool
	awsvpc     bool
	mapped     bool // reached by the node's address, whatever its family
	cgroup     string
}

// arrange finds where a task's containers run, by their network modes: awsvpc
// and Service Connect's bridge mode have a pause container that holds the
// namespace, bridge mode a namespace for each container, host mode none.
func arrange(m *member, containers []docker.Container) []*spot {
	byID := map[string]docker.Container{}
	for _, c := range containers {
		byID[c.ID] = c
	}
	spots := map[string]*spot{}
	var order []*spot
	for _, c := range containers {
		if isPause(c) || c.State == docker.Exited {
			continue
		}
		s := &spot{owner: c, key: c.ID, name: m.name + "/" + c.Labels[labelContainer]}
		switch of, shared := strings.CutPrefix(c.NetworkMode, "container:"); {
		case shared:
			owner, ok := byID[of]
			if !ok {
				continue // a namespace of somebody who is no part of the task
			}
			s.owner, s.key = owner, owner.ID
			s.awsvpc = owner.NetworkMode == "none"
			if owner.Labels[labelContainer] == pausePrefix {
				s.name = m.name
			}
		case c.NetworkMode == "host":
			s.host = true
			s.cgroup = c.Cgroup
			if parent := filepath.Dir(c.Cgroup); c.Cgroup != "" && strings.Contains(filepath.Base(parent), m.id()) {
				s.cgroup, s.name = parent, m.name
			}
			s.key = "cgroup " + s.cgroup
		}
		if known := spots[s.key]; known != nil {
			known.containers = append(known.containers, c)
			continue
		}
		s.containers = []docker.Container{c}
		spots[s.key] = s
		order = append(order, s)
	}
	return order
}

func (m *member) id() string { return m.name[strings.LastIndexByte(m.name, '/')+1:] }

// locate returns the container of a name, and where it runs.
func locate(spots []*spot, name string) (*spot, docker.Container, bool) {
	for _, s := range spots {
		for _, c := range s.containers {
			if c.Labels[labelContainer] == name {
				return s, c, true
			}
		}
	}
	return nil, docker.Container{}, false
}

// problem says what keeps part of the task from being in force.
func (m *member) problem(field, reason, format string, args ...any) {
	p := Problem{Task: m.name, Field: field, Reason: reason, Detail: fmt.Sprintf(format, args...)}
	if !slices.Contains(m.problems, p) { // an endpoint has an address of each family
		m.problems = append(m.problems, p)
	}
}
