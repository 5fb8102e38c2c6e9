package cloudmap

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

// A node that dies leaves its instances in Cloud Map. Others find that out
// from ECS, and take them away. Who looks is a matter of rank: nodes rank by a
// hash of their name with what is looked at, and each rank looks four times
// less often than the one before. So mostly one looks, and when that one is
// dead itself others do, without anybody having to know who lives. Two that
// clean at once do no harm. An error never cleans anything.
const (
	// checkEvery is how often the first in rank asks for a node or a task,
	// and checkEveryNode how much longer it takes for each node: DescribeTasks
	// and DescribeContainerInstances share 20 calls a second of the account.
	checkEvery     = 10 * time.Minute
	checkEveryNode = time.Second
	maxRank        = 6 // 4^6: from here on all look equally seldom
	// suspectAfter is how soon after a failed connect the first in rank looks,
	// and each further rank one suspectStep later.
	suspectAfter = 30 * time.Second
	suspectStep  = 30 * time.Second
	// missingTwice is the time that something must be missing: ECS's answers
	// are eventually consistent.
	missingTwice = 5 * time.Minute
	checkAtOnce  = 100 // of one call
	// maxNotices bounds what this node's index entry tells of its cleaning.
	maxNotices = 50
)

// cleaner is what this node knows of the health of others.
type cleaner struct {
	checks   map[string]*check // by ARN of a container instance or task
	next     *check            // the one that is due first; nil: none
	suspects map[string]time.Time
	notices  map[string]uint64 // by namespace/discoveryName: when it was cleaned last, as a sequence
	lookAt   time.Time         // when checks are brought in line with what is known
	busy     bool
	victims  []*victim
	cleaned  uint64
}

// check is one container instance or task to ask ECS for.
type check struct {
	arn     string
	cluster string
	space   *space
	node    string // the node that it is; "" for a task
	due     time.Time
	missing time.Time // since when it is missing
	gone    bool
	seen    bool // by the current look
}

// victim is an instance to be taken away, or a node's index entry.
type victim struct {
	space   *space
	service string // Cloud Map's name
	id      string
	busy    bool
	back    retry
}

func newCleaner() cleaner {
	return cleaner{checks: map[string]*check{}, suspects: map[string]time.Time{}, notices: map[string]uint64{}}
}

// suspect has a task looked at soon: somebody failed to connect to it.
func (c *cleaner) suspect(task string, now time.Time) {
	if _, ok := c.suspects[task]; !ok && task != "" && len(c.suspects) < checkAtOnce {
		c.suspects[task] = now
	}
}

// cleans says whether this node may clean at all.
func (s *Source) cleans() bool { return s.p.ECS != nil && s.p.Register && !s.registrar.away }

// rank is how many other nodes come before this one for something.
func (s *Source) rank(sp *space, what string) (n int) {
	own := score(s.p.Node, what)
	for node := range sp.entries {
		if node != s.p.Node && score(node, what) > own {
			if n++; n == maxRank {
				break
			}
		}
	}
	return n
}

func score(node, what string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(node))
	h.Write([]byte{0})
	h.Write([]byte(what))
	x := h.Sum64() // FNV mixes its last bytes badly
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

func (s *Source) checkPause(sp *space, what string) time.Duration {
	every := checkEvery + time.Duration(s.fleet())*checkEveryNode
	return jitter(s.random, every<<(2*s.rank(sp, what)))
}

// ownAccount says whether an ARN is of the account that this node's calls are
// made in: only there is missing an answer.
func (s *Source) ownAccount(arn string) bool {
	own := accountOf(s.p.Instance())
	return own != "" && accountOf(arn) == own && clusterOf(arn) != ""
}

// look brings the checks in line with which nodes and tasks are known.
func (s *Source) look(now time.Time) {
	c := &s.cleaner
	c.lookAt = now.Add(suspectAfter / 2)
	for _, each := range c.checks {
		each.seen = false
	}
	add := func(sp *space, arn, node string) {
		k := c.checks[arn]
		if k == nil && !s.ownAccount(arn) {
			return
		}
		if k == nil {
			k = &check{arn: arn, cluster: clusterOf(arn), space: sp, node: node, due: now.Add(s.checkPause(sp, arn))}
			c.checks[arn] = k
		}
		k.seen = true
		if at, ok := c.suspects[arn]; ok && node == "" {
			soon := at.Add(suspectAfter + time.Duration(s.rank(sp, arn))*suspectStep)
			if k.missing.IsZero() && soon.Before(k.due) {
				k.due = soon
			}
		}
	}
	for _, sp := range s.spaces {
		for node, e := range sp.entries {
			if node != s.p.Node {
				add(sp, e.Instance, node)
			}
		}
		for _, sv := range sp.services {
			for i := range sv.ours.list {
				if in := &sv.ours.list[i]; in.Node != s.p.Node {
					add(sp, in.Task, "")
				}
			}
		}
	}
	maps.DeleteFunc(c.checks, func(_ string, k *check) bool { return !k.seen })
	maps.DeleteFunc(c.suspects, func(_ string, at time.Time) bool { return now.Sub(at) > missingTwice })
	if len(c.notices) > maxNotices {
		clear(c.notices)
	}
	c.sort()
}

func (s *Source) cleanerJobs(c *chooser) {
	if !s.cleans() {
		return
	}
	if cl := &s.cleaner; !c.now.Before(cl.lookAt) {
		s.look(c.now)
	}
	if s.cleaner.lookAt.Before(c.wake) {
		c.wake = s.cleaner.lookAt
	}
	if k := s.cleaner.next; k != nil {
		call, do := callTasks, (*Source).checkTasks
		if k.node != "" {
			call, do = callInstances, (*Source).checkNodes
		}
		c.offer(job{call: call, class: classSlow, due: k.due, busy: &s.cleaner.busy, name: k.cluster, do: do})
	}
	for _, v := range s.cleaner.victims {
		if t := v.space.targets[v.service]; t == nil || t.id == "" {
			s.createJob(c, v.space, v.service) // it exists, and this is how to learn its id
			continue
		}
		c.offer(job{call: callDeregister, class: classSlow, due: v.back.until, busy: &v.busy, space: v.space, name: v.id, victim: v, do: (*Source).clean})
	}
}

// sort finds the check that is due first.
func (c *cleaner) sort() {
	c.next = nil
	for _, k := range c.checks {
		if c.next == nil || k.due.Before(c.next.due) {
			c.next = k
		}
	}
}

// due lists the checks of a cluster that are, or nearly are, due.
func (c *cleaner) due(cluster string, nodes bool, now time.Time) (out []*check) {
	for _, k := range c.checks {
		if (k.node != "") == nodes && len(out) < checkAtOnce && k.cluster == cluster && k.due.Before(now.Add(suspectStep)) {
			out = append(out, k)
		}
	}
	return out
}

// verdict takes what ECS says of one check: gone, missing, or neither.
func (s *Source) verdict(k *check, gone, missing bool, now time.Time) {
	switch {
	case gone:
		k.gone = true
	case !missing:
		k.gone, k.missing = false, time.Time{}
	case k.missing.IsZero():
		k.missing = now
	case now.Sub(k.missing) >= missingTwice:
		k.gone = true
	}
	k.due = now.Add(s.checkPause(k.space, k.arn))
	if !k.missing.IsZero() && !k.gone {
		k.due = now.Add(missingTwice + time.Second)
	}
}

func (s *Source) checkTasks(ctx context.Context, j *job) {
	checks, arns := s.dueChecks(j.name, false)
	said := map[string]finding{}
	_, err := s.invoke(ctx, j, callTasks, func(ctx context.Context) error {
		out, err := s.p.ECS.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &j.name, Tasks: arns})
		if err != nil {
			return err
		}
		for i := range out.Tasks {
			said[deref(out.Tasks[i].TaskArn)] = finding{gone: deref(out.Tasks[i].LastStatus) == "STOPPED"}
		}
		noteMissing(said, out.Failures)
		return nil
	})
	s.take(checks, said, err, func(k *check, now time.Time) { s.condemnTask(k.arn, now) })
}

func (s *Source) checkNodes(ctx context.Context, j *job) {
	checks, arns := s.dueChecks(j.name, true)
	said := map[string]finding{}
	_, err := s.invoke(ctx, j, callInstances, func(ctx context.Context) error {
		out, err := s.p.ECS.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{Cluster: &j.name, ContainerInstances: arns})
		if err != nil {
			return err
		}
		for i := range out.ContainerInstances {
			// INACTIVE is one whose EC2 instance was terminated, or that was
			// taken out of the cluster: missing twice, as if it were not listed.
			said[deref(out.ContainerInstances[i].ContainerInstanceArn)] = finding{missing: deref(out.ContainerInstances[i].Status) == "INACTIVE"}
		}
		noteMissing(said, out.Failures)
		return nil
	})
	s.take(checks, said, err, s.condemnNode)
}

// finding is what ECS says of a task or container instance.
type finding struct{ gone, missing bool }

func noteMissing(said map[string]finding, failures []ecstypes.Failure) {
	for _, f := range failures {
		arn := deref(f.Arn)
		if _, listed := said[arn]; !listed && deref(f.Reason) == "MISSING" {
			said[arn] = finding{missing: true}
		}
	}
}

// dueChecks returns what ECS is to be asked about in a cluster.
func (s *Source) dueChecks(cluster string, nodes bool) (checks []*check, arns []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	checks = s.cleaner.due(cluster, nodes, s.p.Now())
	for _, k := range checks {
		arns = append(arns, k.arn)
	}
	return checks, arns
}

// take takes ECS's word, and condemns what has gone. Who is not answered, or an
// error, says nothing.
func (s *Source) take(checks []*check, said map[string]finding, err error, condemn func(*check, time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cleaner.sort()
	now := s.p.Now()
	if err != nil {
		s.postpone(checks, now)
		return
	}
	for _, k := range checks {
		if f, ok := said[k.arn]; ok {
			s.verdict(k, f.gone, f.missing, now)
		} else {
			s.postpone([]*check{k}, now)
		}
	}
	for _, k := range checks {
		if k.gone {
			condemn(k, now)
		}
	}
}

func (s *Source) postpone(checks []*check, now time.Time) {
	for _, k := range checks {
		k.due = now.Add(jitter(s.random, missingTwice))
	}
}

// condemnTask marks the instances of a task that has gone.
func (s *Source) condemnTask(arn string, now time.Time) {
	for _, sp := range s.spaces {
		for _, sv := range sp.services {
			for i := range sv.ours.list {
				if in := &sv.ours.list[i]; in.Task == arn && in.Node != s.p.Node {
					s.condemn(sp, sv.ours.cloudName, in.ID)
				}
			}
		}
	}
}

// condemnNode marks the instances of a node that has gone, as they were read
// after that, and its index entry when there are none left.
func (s *Source) condemnNode(k *check, now time.Time) {
	sp := k.space
	e := sp.entries[k.node]
	if e == nil || e.Instance != k.arn {
		return
	}
	left := false
	for _, name := range s.mayServe(sp, e) {
		sv := s.service(sp, name)
		sv.inspect = now
		if sv.ours.loaded.Before(k.missing) {
			s.schedule(sv.ours, now, classSlow)
			left = true
			continue
		}
		for i := range sv.ours.list {
			if in := &sv.ours.list[i]; in.Node == k.node {
				s.condemn(sp, sv.ours.cloudName, in.ID)
				left = true
			}
		}
	}
	k.due = now.Add(suspectStep)
	if !left {
		for _, sh := range sp.shards {
			if sh.entries[k.node] != nil {
				s.condemn(sp, sh.name, k.node)
			}
		}
	}
}

// mayServe lists the services that a node's entry names; all, if it has more
// than it can name.
func (s *Source) mayServe(sp *space, e *indexEntry) (names []string) {
	if e.More == 0 {
		for name := range e.Services {
			names = append(names, name)
		}
		return names
	}
	for cloudName := range sp.targets {
		if name, ok := s.bare(cloudName); ok && s.writable(cloudName) {
			names = append(names, name)
		}
	}
	return names
}

func (s *Source) condemn(sp *space, service, id string) {
	for _, v := range s.cleaner.victims {
		if v.space == sp && v.service == service && v.id == id {
			return
		}
	}
	s.cleaner.victims = append(s.cleaner.victims, &victim{space: sp, service: service, id: id})
}

// clean takes one instance away, and has everybody told who reads its service.
func (s *Source) clean(ctx context.Context, j *job) {
	sp, v := j.space, j.victim
	s.mu.Lock()
	t := sp.targets[v.service]
	if t == nil || t.id == "" || !s.writable(v.service) {
		s.drop(v)
		s.mu.Unlock()
		return
	}
	ref := *t.ref(sp)
	s.mu.Unlock()
	kind, err := s.invoke(ctx, j, callDeregister, func(ctx context.Context) error {
		_, err := s.p.API.DeregisterInstance(ctx, &sd.DeregisterInstanceInput{ServiceId: &ref, InstanceId: &v.id})
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	if err != nil && kind != faultGone {
		v.back.fail(now, s.random, pauseOf(kind), backoffMost)
		return
	}
	s.drop(v)
	if err == nil {
		s.cleaner.cleaned++
		s.log.Info("took away an instance of a task or node that has gone", "namespace", sp.name, "service", v.service, "instance", v.id)
	}
	name, ok := s.bare(v.service)
	if !ok {
		return // an index entry: that is seen by itself
	}
	s.cleaner.notices[sp.name+"/"+name] = s.registrar.next(now)
	sp.entry.touch(now)
	if sv := sp.services[name]; sv != nil {
		s.schedule(sv.ours, now.Add(retryRead), classSlow)
	}
}

func (s *Source) drop(v *victim) {
	s.cleaner.victims = slices.DeleteFunc(s.cleaner.victims, func(o *victim) bool { return o == v })
}
