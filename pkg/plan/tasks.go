package plan

import (
	"cmp"
	"fmt"
	"slices"

	"connectd/pkg/lb"
)

// task is what the planner remembers of one task, by name.
type task struct {
	id      lb.TaskID
	planned *Task // nil: not planned since the restart
	ready   bool  // all it served was exposed at once
}

// admitTasks gives new tasks their ids and takes those of tasks that ended.
func (p *Planner) admitTasks() {
	if !p.tasksKnown || !p.tasksDirty {
		return
	}
	p.taskProblems = nil
	slices.SortStableFunc(p.tasksInput, func(a, b lb.Task) int { return cmp.Compare(a.Name, b.Name) })
	p.tasksInput = slices.CompactFunc(p.tasksInput, func(a, b lb.Task) bool {
		if a.Name == b.Name {
			p.taskProblems = append(p.taskProblems, fmt.Sprintf("task %s left out: another has its name", a.Name))
		}
		return a.Name == b.Name
	})
	p.endTasks()
	for _, in := range p.tasksInput {
		if p.tasks[in.Name] != nil {
			continue
		}
		id := lb.TaskID(p.taskIDs.take())
		if id == 0 {
			p.taskProblems = append(p.taskProblems, fmt.Sprintf("task %s left out: all %d task ids are in use", in.Name, p.taskIDs.max))
			continue
		}
		p.tasks[in.Name] = &task{id: id}
		p.taskNames[id] = in.Name
		p.log(kindTask).num(uint64(id)).quote(in.Name).end()
	}
}

func (p *Planner) endTasks() {
	var ended []string
	for name := range p.tasks {
		_, lives := slices.BinarySearchFunc(p.tasksInput, name, func(t lb.Task, n string) int { return cmp.Compare(t.Name, n) })
		if !lives {
			ended = append(ended, name)
		}
	}
	slices.Sort(ended)
	for _, name := range ended {
		t := p.tasks[name]
		delete(p.tasks, name)
		delete(p.taskNames, t.id)
		p.release(&p.taskIDs, kindTask, uint32(t.id), true)
	}
}

// planTasks returns the tasks as planned, sorted by name; the slice of the
// last Step when nothing changed. next has its Local.
func (p *Planner) planTasks(next *Desired) []*Task {
	var last []*Task
	if p.last != nil {
		last = p.last.Tasks
	}
	if !p.tasksKnown || !p.tasksDirty && len(p.ejections) == 0 && !p.avoiding && (p.last == nil || same(next.Local, p.last.Local)) {
		return last
	}
	p.tasksDirty = false
	avoid := p.avoidLists()
	p.avoiding = len(avoid) > 0
	out := make([]*Task, 0, len(p.tasksInput))
	for i := range p.tasksInput {
		in := &p.tasksInput[i]
		t := p.tasks[in.Name]
		if t == nil {
			continue
		}
		task := Task{Task: *in, ID: t.id, HashKey: taskHashKey(in.Name), Avoid: avoid[t.id], Owner: in.ECS.Owner(), Ready: p.isReady(t, next.Serves(in.Name))}
		for _, name := range in.Namespaces {
			if ns := p.namespaces[name]; ns != nil {
				task.Scope[ns.id/64] |= 1 << (ns.id % 64)
			}
		}
		if t.planned == nil || !equalTasks(t.planned, &task) {
			t.planned = &task
		}
		out = append(out, t.planned)
	}
	if last != nil && slices.Equal(last, out) {
		return last
	}
	return out
}

// taskHashKey must never change: source hash would send every task elsewhere
// with an upgrade.
func taskHashKey(name string) uint32 { return uint32(mix(fnv1a(fnvOffset, name))) }

// avoidLists collects the ejections of single tasks. They hold only while
// health is not being ignored, and never for all that a service has to offer:
// then the task takes what there is.
func (p *Planner) avoidLists() map[lb.TaskID][]lb.EndpointID {
	type avoided struct {
		task     lb.TaskID
		service  *service
		endpoint lb.EndpointID
	}
	var all []avoided
	for id, list := range p.ejections {
		r := p.owner(id)
		if r.planned == nil || r.planned.Panic || r.planned.LastResort || !r.offers(id) {
			continue
		}
		for _, j := range list {
			if j.task != forAll && p.now.Before(j.until) {
				all = append(all, avoided{j.task, r, id})
			}
		}
	}
	slices.SortFunc(all, func(a, b avoided) int {
		return cmp.Or(cmp.Compare(a.task, b.task), cmp.Compare(a.service.id, b.service.id), cmp.Compare(a.endpoint, b.endpoint))
	})
	out := make(map[lb.TaskID][]lb.EndpointID)
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].task == all[0].task && all[n].service == all[0].service {
			n++
		}
		if n < census(all[0].service.endpoints).active {
			for _, a := range all[:n] {
				out[a.task] = append(out[a.task], a.endpoint)
			}
		}
		all = all[n:]
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

// offers says whether clients are sent to an endpoint.
func (r *service) offers(id lb.EndpointID) bool {
	return slices.ContainsFunc(r.endpoints, func(e Endpoint) bool { return e.ID == id && e.State == lb.StateActive })
}

func equalTasks(a, b *Task) bool {
	return a.ID == b.ID && a.HashKey == b.HashKey && a.Ready == b.Ready && a.Scope == b.Scope && slices.Equal(a.Avoid, b.Avoid) &&
		a.Name == b.Name && a.NetnsCookie == b.NetnsCookie && a.CgroupID == b.CgroupID && a.CgroupLevel == b.CgroupLevel &&
		a.NetnsPath == b.NetnsPath && slices.Equal(a.HostsFiles, b.HostsFiles) && a.ECS == b.ECS && a.ResolvConf == b.ResolvConf &&
		slices.Equal(a.Namespaces, b.Namespaces) && slices.Equal(a.Resolvers, b.Resolvers) && slices.Equal(a.Search, b.Search)
}
