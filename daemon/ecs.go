package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectd/pkg/catalog"
	"connectd/pkg/control"
	"connectd/pkg/dns"
	"connectd/pkg/ecsapi"
	"connectd/pkg/metrics"
	"connectd/pkg/plan"
	"connectd/pkg/task"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
)

// dockerWait is how long a start waits for Docker to say what runs, where its
// socket is there: a first plan without the tasks would take their names away
// for a moment. At boot Docker starts after connectd, and nothing is waited for.
const dockerWait = 2 * time.Second

// openECS makes the parts that find tasks of ECS, if the config has them.
func (d *daemon) openECS(c *Config) error {
	if c.ECS == nil {
		return nil
	}
	root, err := task.CgroupRoot()
	if err != nil {
		return err
	}
	d.docker, err = docker.New(docker.Params{
		Host: c.ECS.Docker, CgroupRoot: root, Readiness: plan.ReadyVIP(c.VIPCIDR).String(), Log: d.log.With("component", "docker"),
		Changed: func() { d.tasks.node.Look() },
	})
	if err != nil {
		return err
	}
	d.ecs = ecsapi.New(ecsapi.Params{Log: d.log.With("component", "ecs"), Observe: d.lookups.observe, Changed: func() { d.tasks.node.Look() }})
	d.tasks.node = task.NewNode(task.NodeParams{
		Log: d.log.With("component", "tasks"), CgroupRoot: root, Cookie: d.datapath.NetnsCookie, ResolvConf: dns.ReadResolvConf,
		Containers: d.docker.Containers, Zone: d.zone.id(), Same: catalog.Equal,
		Lookup:  lookup{d.ecs, c.ECS.Cluster},
		Address: func() (task.Addresses, error) { return task.ReadAddresses(d.own) },
		Memory:  filepath.Join(c.StateDir, "containers.json"),
		Changed: d.residentsChanged, Report: d.reportProblem,
	})
	d.tasks.node.SetPolicy(joinPolicy(c.ECS))
	return nil
}

// lookup asks ECS of the cluster of the config, unless that is auto: then of
// the one that a task's labels name.
type lookup struct {
	*ecsapi.Cache
	cluster string
}

func (l lookup) of(labelled string) string {
	if l.cluster == ecsAuto {
		return labelled
	}
	return l.cluster
}

func (l lookup) DefaultNamespace(cluster string) (string, bool, error) {
	return l.Cache.DefaultNamespace(l.of(cluster))
}

func (l lookup) Service(taskARN, cluster string) (string, bool, error) {
	return l.Cache.Service(taskARN, l.of(cluster))
}

// residentsChanged has both looked at, what is served first: a task that is
// known before its endpoints are would be ready too soon.
func (d *daemon) residentsChanged() {
	d.loop.CatalogChanged()
	d.loop.TasksChanged()
}

func joinPolicy(e *ECS) join.Policy {
	p := join.Policy{JoinAll: e.JoinAll, Namespaces: e.Namespaces}
	for _, rule := range e.Publish {
		p.Publish = append(p.Publish, join.PublishRule{Family: rule.Family, DiscoveryNames: rule.DiscoveryNames})
	}
	return p
}

// taskProblems counts problems of tasks by reason.
type taskProblems struct {
	mu     sync.Mutex
	counts map[string]uint64
}

// reportProblem says once what is not as a task asks for.
func (d *daemon) reportProblem(p task.Problem) {
	d.problems.mu.Lock()
	if d.problems.counts == nil {
		d.problems.counts = map[string]uint64{}
	}
	d.problems.counts[p.Reason]++
	d.problems.mu.Unlock()
	if d.events.Add(control.Event{Kind: control.EventProblem, Task: p.Task, Name: p.Field, Reason: p.Reason, Detail: p.Detail}) {
		d.log.Warn("task is not as it asks to be", "component", "tasks", "task", p.Task, "field", p.Field, "reason", p.Reason, "detail", p.Detail)
	}
}

// problemCounters are for metrics, every reason, seen or not.
func (d *daemon) problemCounters() []metrics.Counter {
	d.problems.mu.Lock()
	defer d.problems.mu.Unlock()
	var out []metrics.Counter
	for _, reason := range append(task.Reasons(), catalog.ClashReasons()...) {
		out = append(out, metrics.Counter{Reason: reason, Value: d.problems.counts[reason]})
	}
	return out
}

// pruneHosts takes names out of the hosts files of tasks that are no more, once
// it is known which those are.
func (d *daemon) pruneHosts(ctx context.Context) error {
	if d.tasks.node != nil {
		select {
		case <-d.tasks.node.Found():
		case <-ctx.Done():
			return nil
		}
	}
	if err := d.loop.Settle(ctx); err == nil {
		d.dns.PruneHosts()
	}
	return nil
}

// awaitDocker returns when it is known what runs, or cannot be known soon.
func (d *daemon) awaitDocker(ctx context.Context) {
	if d.docker == nil {
		return
	}
	path := strings.TrimPrefix(d.config.Load().ECS.Docker, "unix://")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !d.tasks.node.Recalls() {
		d.log.Warn("docker is not there yet: tasks are found once it is", "socket", path)
		return
	}
	timeout := time.NewTimer(dockerWait)
	defer timeout.Stop()
	select {
	case <-d.tasks.node.Found():
	case <-timeout.C:
		d.log.Warn("docker has not said yet what runs: going on without", "error", d.docker.Status().Err)
	case <-ctx.Done():
	}
}

// ecsStatus is what status says of finding tasks.
func (d *daemon) ecsStatus() (out []control.Problem) {
	if d.docker == nil {
		return nil
	}
	if s := d.docker.Status(); !s.Connected {
		out = append(out, control.Problem{Name: "docker", Message: fmt.Sprintf("docker has been away for %s: %s; tasks that are known go on",
			time.Since(s.Since).Round(time.Second), s.Err), Fix: "start docker; connectd needs its socket, see ecs.docker"})
	}
	for _, p := range d.tasks.node.Problems() {
		if !p.Note {
			out = append(out, control.Problem{Name: "task", Message: fmt.Sprintf("%s: %s: %s (%s)", p.Task, p.Field, p.Detail, p.Reason),
				Fix: "correct the task definition's labels, docs/joining.md has every reason"})
		}
	}
	for _, c := range d.merged.clashes() {
		out = append(out, control.Problem{Name: "catalog", Message: c.String(), Fix: "give the names to one service only, or the service one protocol"})
	}
	return out
}
