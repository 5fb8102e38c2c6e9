package docker

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// describeAll describes containers as they are met. A list takes no container's
// lock, unlike an inspection: it answers while they start. Those that came
// meanwhile are described together.
func (w *Watcher) describeAll(c *conn) error {
	for {
		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-w.describe:
		}
		ids := w.undescribed()
		if len(ids) == 0 {
			continue
		}
		// One that was destroyed meanwhile is in no answer; its event comes.
		list, err := w.list(c, ids...)
		if err != nil {
			return err
		}
		for i := range list {
			w.describeOne(c, &list[i])
		}
	}
}

func (w *Watcher) undescribed() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, e := range w.entries {
		if !e.described {
			ids = append(ids, id)
		}
	}
	return ids
}

// list lists containers that have ECS labels, ended ones too; all without ids.
func (w *Watcher) list(c *conn, ids ...string) ([]container.Summary, error) {
	ctx, cancel := context.WithTimeout(c.ctx, askTime)
	defer cancel()
	filters := make(client.Filters).Add("label", labelTask)
	const maxIDs = 50 // each is 90 bytes of the request's line
	if 0 < len(ids) && len(ids) <= maxIDs {
		filters.Add("id", ids...)
	}
	got, err := c.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return got.Items, nil
}

// describeOne takes over what a list says of a container that is new.
func (w *Watcher) describeOne(c *conn, s *container.Summary) {
	labels, err := w.imageLabels(c, s.ImageID)
	if cerrdefs.IsNotFound(err) {
		// Which labels are the image's cannot be told any more, so all may be.
		labels, err = s.Labels, nil
	}
	if err != nil {
		if c.ctx.Err() == nil {
			w.failed("inspect image of container", s.ID, err)
		}
		return
	}
	w.change(s.ID, func(e *entry) {
		if e.described {
			return
		}
		e.described = true
		e.ImageLabels = labels
		if e.inspected {
			return // which knows more
		}
		e.runs = e.runs || s.State == container.StateRunning || s.State == container.StatePaused
		e.Labels = s.Labels
		if len(s.Names) > 0 {
			e.Name = strings.TrimPrefix(s.Names[0], "/")
		}
		e.NetworkMode = s.HostConfig.NetworkMode
		e.HostsPath = w.hostsPath(e.ID, e.NetworkMode)
		e.ResolvConfPath = beside(e.HostsPath)
		if c, ok := w.cgroups[e.ID]; ok && e.State == Created {
			e.Cgroup, e.PID = c.path, c.pid
		}
	})
}

// maxImages is more than a node has; labels may be large.
const maxImages = 1000

// imageLabels asks for each image once: its id is a hash of what it is.
func (w *Watcher) imageLabels(c *conn, id string) (map[string]string, error) {
	w.mu.Lock()
	labels, ok := w.images[id]
	w.mu.Unlock()
	if ok {
		return labels, nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, askTime)
	defer cancel()
	got, err := c.api.ImageInspect(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("inspect image %s: %w", id, err)
	}
	labels = map[string]string{}
	if got.Config != nil {
		maps.Copy(labels, got.Config.Labels)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.images) >= maxImages {
		clear(w.images) // those in use come back
	}
	w.images[id] = labels
	return labels, nil
}

// resync compares with Docker's list. With all, each container is inspected,
// and it returns when that is done; else those that differ are, later.
func (w *Watcher) resync(c *conn, all bool) error {
	asked := time.Now()
	list, err := w.list(c)
	if err != nil {
		return err
	}
	listed := make(map[string]bool, len(list))
	var answers []<-chan struct{}
	for i := range list {
		s := &list[i]
		listed[s.ID] = true
		w.meet(s.ID)
		if all || w.differs(s) {
			w.describeOne(c, s)
			answers = append(answers, w.inspect(s.ID))
		}
	}
	for _, answer := range answers {
		if all && answer != nil {
			<-answer
		}
	}
	for _, id := range w.missing(listed, asked) {
		w.forget(id)
	}
	return c.ctx.Err()
}

// differs reports whether the list tells something else than is known.
func (w *Watcher) differs(s *container.Summary) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[s.ID]
	if e == nil || !e.described {
		return e != nil
	}
	state := Exited
	switch s.State {
	case container.StateCreated, container.StateRestarting:
		state = Created
	case container.StateRunning, container.StatePaused:
		state = Running
	}
	return e.State != state || state == Running && !e.inspected
}

// missing are containers that a list asked for at a time should have named.
func (w *Watcher) missing(listed map[string]bool, asked time.Time) (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, e := range w.entries {
		if !listed[id] && e.born.Before(asked) {
			ids = append(ids, id)
		}
	}
	return ids
}
