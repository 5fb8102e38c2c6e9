package daemon

import (
	"context"
	"time"

	"connectd/pkg/ecsapi"
)

const (
	// agentInterval is how often the agent is asked who it is, until it says:
	// it registers the instance some seconds after its start.
	agentInterval = 5 * time.Second
	// instanceInterval is how often the instance's attribute connectd.off is
	// looked at: 200 nodes make 3.3 calls/s of the 20/s that an account has.
	instanceInterval = time.Minute
	// farewell bounds the call that takes connectd.ready away at a stop.
	farewell = 2 * time.Second
)

// followInstance keeps the container instance's attribute connectd.ready, and
// obeys connectd.off. All of it is best effort: without the agent, or the
// permission, tasks are served all the same.
func (d *daemon) followInstance(ctx context.Context) error {
	if d.ecs == nil {
		return nil
	}
	meta, ok := d.awaitAgent(ctx)
	if !ok {
		return nil
	}
	defer d.clearReady(meta)
	tick := time.NewTicker(instanceInterval)
	defer tick.Stop()
	said := false
	for {
		if !said && d.ready.Load() {
			err := d.ecs.PutReady(ctx, meta.Cluster, meta.ContainerInstanceARN, true)
			said = err == nil
			if err != nil && ctx.Err() == nil {
				d.log.Warn("set the instance attribute connectd.ready", "error", err)
			}
		}
		d.obeyAttribute(ctx, meta)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// awaitAgent asks the agent until it knows its container instance, and waits
// until connectd is ready.
func (d *daemon) awaitAgent(ctx context.Context) (meta ecsapi.Metadata, ok bool) {
	agent := &ecsapi.Agent{URL: d.config.Load().ECS.Introspection}
	tick := time.NewTicker(agentInterval)
	defer tick.Stop()
	told := false
	for {
		m, err := agent.Metadata(ctx)
		if err == nil && m.ContainerInstanceARN != "" && d.ready.Load() {
			d.containerInstance.Store(&m.ContainerInstanceARN)
			d.log.Info("this is a container instance", "cluster", m.Cluster, "instance", m.ContainerInstanceARN, "agent", m.Version)
			return m, true
		}
		if err != nil && !told && ctx.Err() == nil {
			d.log.Warn("the ECS agent does not answer: no instance attributes", "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return m, false
		case <-tick.C:
		}
	}
}

// obeyAttribute puts the brake on while somebody has set connectd.off, and
// takes off only what it has put on.
func (d *daemon) obeyAttribute(ctx context.Context, meta ecsapi.Metadata) {
	is, err := d.ecs.Instance(ctx, meta.Cluster, meta.ContainerInstanceARN)
	if err == nil {
		d.draining.Store(is.Draining)
	}
	off := is.Off
	if err != nil || off == d.offByAttribute {
		return // logged by the cache's owner once a reason, see Problems
	}
	if off && !d.offSince().IsZero() {
		return // by command already
	}
	if !off && !d.brake.attribute.Load() {
		d.offByAttribute = false // people have taken it off since, and perhaps put it on
		return
	}
	if _, err := d.setBrake(ctx, off, true); err != nil && ctx.Err() == nil {
		d.log.Error("obey the instance attribute connectd.off", "error", err)
		return
	}
	d.offByAttribute = off
}

func (d *daemon) clearReady(meta ecsapi.Metadata) {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if err := d.ecs.PutReady(ctx, meta.Cluster, meta.ContainerInstanceARN, false); err != nil {
		d.log.Warn("clear the instance attribute connectd.ready", "error", err)
	}
}
