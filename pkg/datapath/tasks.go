package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

const taskAvoids = 1 // TASK_AVOIDS in bpf/lib/types.h

func encodeTask(t *plan.Task) *connectTask {
	out := &connectTask{Key: taskKey(t), Id: uint32(t.ID), HashKey: t.HashKey, Scope: t.Scope}
	if len(t.Avoid) > 0 {
		out.Flags |= taskAvoids
	}
	return out
}

// taskKey is what the kernel knows the task by, in the map of taskMap.
func taskKey(t *plan.Task) uint64 {
	if t.CgroupID != 0 {
		return t.CgroupID
	}
	return t.NetnsCookie
}

func (d *Datapath) taskMap(t *plan.Task) *ebpf.Map {
	if t.CgroupID != 0 {
		return d.objs.TasksCgroupV1
	}
	return d.objs.TasksNetnsV1
}

func (d *Datapath) putTasks(tasks []*plan.Task) error {
	for _, t := range tasks {
		if int(t.ID) >= len(d.shared.taskConnections) {
			return fmt.Errorf("write task %s: more than %d tasks", t.Name, len(d.shared.taskConnections)-1)
		}
		if err := d.putAvoids(t); err != nil {
			return fmt.Errorf("write ejections of task %s: %w", t.Name, err)
		}
		if t.CgroupID != 0 {
			d.written.levels[t.CgroupID] = t.CgroupLevel
		}
	}
	// Hooks look only at the depths listed here, so these go first.
	if err := d.writeSettings(); err != nil {
		return err
	}
	for _, t := range tasks {
		if err := d.taskMap(t).Put(taskKey(t), encodeTask(t)); err != nil {
			return fmt.Errorf("write task %s: %w", t.Name, err)
		}
	}
	return nil
}

func (d *Datapath) dropTasks(tasks []*plan.Task) error {
	for _, t := range tasks {
		if err := d.taskMap(t).Delete(taskKey(t)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete task %s: %w", t.Name, err)
		}
		if err := d.putAvoids(&plan.Task{ID: t.ID}); err != nil {
			return fmt.Errorf("delete ejections of task %s: %w", t.Name, err)
		}
		delete(d.written.levels, t.CgroupID)
	}
	if len(tasks) == 0 {
		return nil
	}
	return d.writeSettings()
}

// putAvoids makes the endpoints ejected for one task alone what the plan says.
func (d *Datapath) putAvoids(t *plan.Task) error {
	have := d.written.avoids[t.ID]
	want := make(map[lb.EndpointID]struct{}, len(t.Avoid))
	for _, id := range t.Avoid {
		want[id] = struct{}{}
		if _, ok := have[id]; ok {
			continue
		}
		key := connectTaskEndpoint{Task: uint32(t.ID), Endpoint: uint32(id)}
		if err := d.objs.AvoidsV1.Put(&key, uint8(1)); err != nil {
			return err
		}
	}
	for id := range have {
		if _, ok := want[id]; ok {
			continue
		}
		key := connectTaskEndpoint{Task: uint32(t.ID), Endpoint: uint32(id)}
		if err := d.objs.AvoidsV1.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	if len(want) == 0 {
		delete(d.written.avoids, t.ID)
	} else {
		d.written.avoids[t.ID] = want
	}
	return nil
}
