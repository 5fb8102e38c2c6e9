package docker

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

const (
	// createdTime is how long a container that is not started is asked for. Docker
	// locks it while it starts, for seconds on a busy node, and the question would
	// stand in the way of others; after the start it is asked again.
	createdTime = 100 * time.Millisecond
	// runningTime bounds the others. Docker may hold a lock for long over a slow
	// disk; the slow resync asks again.
	runningTime = 20 * time.Second
)

// inspect asks Docker for all of one container, in the background: once more if
// it is being asked now, for that answer may be old. idle is closed when it has
// answered; nil is that nothing is asked.
func (w *Watcher) inspect(id string) (idle <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, e := w.conn, w.entries[id]
	if c == nil || e == nil {
		return nil
	}
	if e.asking {
		e.again = true
		return e.idle
	}
	done := make(chan struct{})
	e.asking, e.idle = true, done
	c.jobs.Go(func() {
		defer close(done)
		for w.ask(c, id) {
		}
	})
	return done
}

// ask inspects once and reports whether to do it again.
func (w *Watcher) ask(c *conn, id string) (again bool) {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-c.ctx.Done():
	}
	seq, limit, ok := w.question(id)
	if !ok {
		return false
	}
	at := time.Now()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	got, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if cerrdefs.IsNotFound(err) {
		w.forget(id)
		return false
	}
	if err != nil && ctx.Err() == nil {
		w.failed("inspect container", id, err)
	}
	w.change(id, func(e *entry) {
		current := e.seq == seq
		if err == nil && current {
			w.apply(e, &got.Container, at)
		}
		again = (e.again || err == nil && !current) && c.ctx.Err() == nil
		e.asking = again
	})
	return again
}

// question is how long to wait for an answer, and to which events it belongs.
func (w *Watcher) question(id string) (seq int, limit time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[id]
	if e == nil {
		return 0, 0, false
	}
	e.again = false
	if e.State == Created && !e.runs {
		return e.seq, createdTime, true
	}
	return e.seq, runningTime, true
}

// apply takes over an answer that was asked for at a time.
func (w *Watcher) apply(e *entry, got *container.InspectResponse, at time.Time) {
	if got.Config == nil || got.HostConfig == nil || got.State == nil {
		w.status.Errors++
		return
	}
	e.inspected = true
	e.Name = strings.TrimPrefix(got.Name, "/")
	e.Labels = got.Config.Labels
	e.NetworkMode = string(got.HostConfig.NetworkMode)
	e.CgroupParent = got.HostConfig.CgroupParent
	e.Hostname = got.Config.Hostname
	e.Restarts = got.RestartCount
	e.HostsPath = w.hostsPath(e.ID, e.NetworkMode)
	e.ResolvConfPath = beside(e.HostsPath)
	if got.HostsPath != "" {
		e.HostsPath = got.HostsPath
	}
	if got.ResolvConfPath != "" {
		e.ResolvConfPath = got.ResolvConfPath
	}
	e.ChecksReadiness = checksReadiness(got.Config.Healthcheck)
	e.stopSignal = sigTerm
	if n := signalNumber(got.Config.StopSignal); n != 0 {
		e.stopSignal = n
	}
	e.Health = ""
	if h := got.State.Health; h != nil && h.Status != container.NoHealthcheck {
		e.Health = string(h.Status)
	}
	e.ChecksReadiness = w.Readiness != "" && got.Config.Healthcheck != nil &&
		strings.Contains(strings.Join(got.Config.Healthcheck.Test, " "), w.Readiness)
	e.Ports = ports(got.NetworkSettings)
	started, _ := time.Parse(time.RFC3339Nano, got.State.StartedAt)
	if started.Year() <= 1 { // Docker's way to say never
		started = time.Time{}
	}
	w.applyState(e, got.State, started, at)
}

func (w *Watcher) applyState(e *entry, s *container.State, started, at time.Time) {
	cgroup, there := w.cgroups[e.ID]
	e.runs = s.Running && !s.Restarting && s.Pid != 0
	if e.runs && s.Pid == e.ended && s.Pid != cgroup.pid {
		e.runs = false // Docker learns a moment later that it has ended
		return
	}
	switch {
	case e.runs:
		w.setRunning(e, s.Pid, started)
		e.PortsKnown = true
		if e.Cgroup = cgroup.path; !there {
			e.Cgroup = containerCgroup(w.CgroupRoot, e.ID, s.Pid)
		}
		return
	case s.Status == container.StateCreated || s.Restarting:
		e.State = Created
	default:
		e.State = Exited
	}
	e.PID, e.Cgroup, e.Started, e.PortsKnown = 0, "", started, false
	// It is starting, or has been started since Docker was asked.
	if there && (cgroup.at.After(at) || e.State == Created && started.IsZero()) {
		e.State, e.PID, e.Cgroup = Created, cgroup.pid, cgroup.path
	}
}

// hostsPath is where Docker will have a container's hosts file: that of the
// container whose network it shares. "" is not known.
func (w *Watcher) hostsPath(id, networkMode string) string {
	if ref, ok := strings.CutPrefix(networkMode, "container:"); ok {
		id = ref
		for _, e := range w.entries {
			if e.ID == ref || e.Name == ref {
				id = e.ID
				if e.HostsPath != "" {
					return e.HostsPath
				}
			}
		}
	}
	if w.root == "" || len(id) != idLength {
		return ""
	}
	return filepath.Join(w.root, "containers", id, "hosts")
}

// beside is where Docker has a container's resolv.conf: beside its hosts file.
func beside(hostsPath string) string {
	if hostsPath == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(hostsPath), "resolv.conf")
}

// readyAddr is where connectd tells a task whether it is ready.
const readyAddr = "127.254.255.254"

// checksReadiness reports whether a check asks connectd.
func checksReadiness(h *container.HealthConfig) bool {
	return h != nil && slices.ContainsFunc(h.Test, func(word string) bool { return strings.Contains(word, readyAddr) })
}

// ports lists published ports in order.
func ports(s *container.NetworkSettings) (list []Port) {
	if s == nil {
		return nil
	}
	for port, bindings := range s.Ports {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil || n == 0 {
				continue
			}
			list = append(list, Port{
				Container: port.Num(), Protocol: string(port.Proto()), HostAddr: b.HostIP, Host: uint16(n),
			})
		}
	}
	slices.SortFunc(list, comparePorts)
	return list
}
