package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// followed are the events that change what is told of a container. Health
// checks make three others every few seconds, each.
func followed() []string {
	return []string{"create", "start", "die", "destroy", "kill", "rename", "update", "health_status"}
}

// askTime bounds a question that needs no container's lock.
const askTime = 20 * time.Second

// versionTime is how long a person waits for Version.
const versionTime = 5 * time.Second

// follow connects and follows events until something fails. connected tells
// whether Docker had answered.
func (w *Watcher) follow(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A new client, for Docker may have come back as another version.
	api, err := client.New(client.WithHost(w.Host))
	if err != nil {
		return false, err
	}
	defer api.Close()
	version, err := w.greet(ctx, api)
	if err != nil {
		return false, err
	}
	stream := api.Events(ctx, w.wanted())
	c := &conn{ctx: ctx, api: api}
	w.setConn(c)
	failed := make(chan error, 2)
	var parts sync.WaitGroup
	defer func() {
		w.setConn(nil)
		cancel()
		parts.Wait()
		c.jobs.Wait()
	}()
	// Events are taken while the list is on its way: Docker drops what is not.
	parts.Go(func() { failed <- w.describeAll(c) })
	parts.Go(func() { failed <- w.keepInStep(c, version) })
	for {
		select {
		case m := <-stream.Messages:
			w.handle(m)
		case err := <-stream.Err:
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("docker ended its stream of events")
			}
			return w.Status().Connected, err
		case err := <-failed:
			return w.Status().Connected, err
		}
	}
}

func (w *Watcher) setConn(c *conn) {
	w.mu.Lock()
	w.conn = c
	w.mu.Unlock()
}

// wanted asks for events from now on, or from the last one on. Docker flushes
// its head before it subscribes us, and keeps the last 256 events: what happens
// between is had by time.
func (w *Watcher) wanted() client.EventsListOptions {
	w.mu.Lock()
	since := w.since
	w.mu.Unlock()
	if since == 0 {
		since = time.Now().UnixNano()
	}
	return client.EventsListOptions{
		Since:   fmt.Sprintf("%d.%09d", since/1e9, since%1e9),
		Filters: make(client.Filters).Add("type", "container").Add("label", labelTask).Add("event", followed()...),
	}
}

// greet asks for what does not change while Docker runs.
func (w *Watcher) greet(ctx context.Context, api *client.Client) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	w.root = got.Info.DockerRootDir
	w.mu.Unlock()
	return got.Info.ServerVersion, nil
}

// Version asks a Docker for its version, for at most 5 s.
func Version(ctx context.Context, host string) (string, error) {
	api, err := client.New(client.WithHost(host))
	if err != nil {
		return "", fmt.Errorf("ask docker: %w", err)
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	got, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return "", fmt.Errorf("ask docker: %w", err)
	}
	return got.Version, nil
}

// keepInStep compares with Docker's list now and from time to time.
func (w *Watcher) keepInStep(c *conn, version string) error {
	tick := time.NewTicker(resyncTime)
	defer tick.Stop()
	for all := true; ; all = false {
		if err := w.resync(c, all); err != nil {
			return err
		}
		if all {
			w.met(version)
		}
		select {
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *Watcher) met(version string) {
	w.mu.Lock()
	if w.known {
		w.status.Reconnects++
	}
	w.known = true
	w.status.Connected, w.status.Since, w.status.Err, w.status.Version = true, time.Now(), nil, version
	n := len(w.entries)
	w.mu.Unlock()
	w.Log.Info("connected to docker", "host", w.Host, "version", version, "containers", n)
	w.Changed()
}

// lost notes that Docker is away. It is logged once.
func (w *Watcher) lost(err error) {
	w.mu.Lock()
	first := w.status.Connected || w.status.Err == errNotAsked
	if first {
		w.status.Since = time.Now()
	}
	w.status.Errors++
	w.status.Connected, w.status.Err = false, err
	w.mu.Unlock()
	if first {
		w.Log.Warn("docker is away, asking again", "host", w.Host, "error", err)
		w.Changed()
	}
}

// handle takes one event. Events may come twice after a reconnection, and may
// be older than what is known: those of an earlier run are recognised by time.
func (w *Watcher) handle(m events.Message) {
	id := m.Actor.ID
	if m.Type != events.ContainerEventType || len(id) != idLength || m.Actor.Attributes[labelTask] == "" {
		return
	}
	w.mu.Lock()
	w.since = max(w.since, m.TimeNano)
	w.mu.Unlock()
	if m.Action == events.ActionDestroy {
		w.forget(id)
		return
	}
	w.meet(id)
	w.change(id, func(e *entry) {
		e.seq++
		e.counts = true
		w.event(e, m)
	})
	w.inspect(id)
}

// event takes over what an event itself tells; an inspection tells the rest.
func (w *Watcher) event(e *entry, m events.Message) {
	at := time.Unix(0, m.TimeNano)
	// Docker tells of an end before it starts the container again.
	old := at.Before(e.Started)
	action, detail, _ := strings.Cut(string(m.Action), ": ")
	switch action {
	case "start":
		if old {
			return
		}
		e.runs = true
		// Nobody can do anything with a container that runs and has no PID.
		if e.PID != 0 && e.State != Running {
			w.setRunning(e, e.PID, at)
		}
	case "die":
		if !old && !at.Before(w.cgroups[e.ID].at) {
			e.exited()
		}
	case "kill":
		if !old && endsBy(e.stopSignal, m.Actor.Attributes["signal"]) {
			e.Stopping = true
		}
	case "health_status":
		if !old && (detail == "healthy" || detail == "unhealthy") {
			e.Health = detail
		}
	}
}

func (w *Watcher) setRunning(e *entry, pid int, at time.Time) {
	if e.State != Running {
		if e.counts && e.PID != 0 {
			w.status.EarlyStarts++
		} else if e.counts {
			w.status.LateStarts++
		}
		e.Stopping = false
	}
	e.State, e.PID, e.Started = Running, pid, at
}

func (e *entry) exited() {
	e.runs, e.State, e.PID, e.Cgroup, e.Health, e.PortsKnown = false, Exited, 0, "", "", false
}
