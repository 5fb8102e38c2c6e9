package docker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"connectd/pkg/testutil/owned"
)

// Port is a port of a container to publish, in bridge mode.
type Port struct {
	Container uint16
	Host      uint16 // 0 has Docker choose one
	Protocol  string // "tcp" by default
}

// ContainerSpec is one container of a task definition.
type ContainerSpec struct {
	Name, Image string
	Entrypoint  []string // of the image when empty, as are the others
	Cmd         []string
	Labels      map[string]string // Docker labels
	Env         []string          // NAME=value
	Ports       []Port
	HealthCheck *HealthCheck
	StopSignal  string
	Init        bool     // docker-init is the first process
	Restart     bool     // Docker restarts it when it fails
	Binds       []string // /on/the/node:/in/it[:ro]
}

// TaskSpec is a task as RunTask and its definition describe it.
type TaskSpec struct {
	Cluster     string // "default" by default
	Family      string // "app" by default
	Revision    int    // 1 by default
	ID          string // 32 hex digits, made from a counter when empty
	NetworkMode string // "awsvpc", "bridge" or "host"
	Containers  []ContainerSpec

	Addr       netip.Prefix // in awsvpc; the next free one of the engine's Network when zero
	Addr6      netip.Prefix // in awsvpc, of a subnet of both families; none when zero
	Pause      bool         // in bridge mode: a pause container for each, as Service Connect has it
	DNS        []netip.Addr
	ExtraHosts []string // name:address
}

// Account is whose tasks these are.
const Account = "123456789012"

// Task is a task that runs.
type Task struct {
	TaskSpec
	ARN        string
	Containers []Container // in the order of the spec, pause containers not among them
	Pauses     []Container
}

// Container is one that runs.
type Container struct {
	ID   string
	Name string // as ECS names it: "web", "~internal~ecs~pause"
	PID  int
	Addr netip.Addr        // of its network namespace; zero is the node's
	Host map[uint16]uint16 // published ports: the container's to the node's
}

// Container returns a container by its name in the task definition.
func (t *Task) Container(name string) *Container {
	for i := range t.Containers {
		if t.Containers[i].Name == name {
			return &t.Containers[i]
		}
	}
	return nil
}

// Task starts a task as the ECS agent does: in awsvpc mode the pause container
// without a network, then its interface as CNI plugins make it, then the
// containers in its namespace; labels, names and cgroups are ECS's. What had
// started when something fails goes on; Close ends it.
func (e *Engine) Task(ctx context.Context, s TaskSpec) (*Task, error) {
	n := e.number()
	if s.ID == "" {
		s.ID = fmt.Sprintf("%032x", n)
	}
	if s.Cluster == "" {
		s.Cluster = "default"
	}
	if s.Family == "" {
		s.Family = "app"
	}
	if s.Revision == 0 {
		s.Revision = 1
	}
	t := &Task{TaskSpec: s, ARN: fmt.Sprintf("arn:aws:ecs:us-east-1:%s:task/%s/%s", Account, s.Cluster, s.ID)}
	var err error
	switch s.NetworkMode {
	case "awsvpc":
		err = e.startAwsvpc(ctx, t, n)
	case "bridge", "host":
		err = e.startPlain(ctx, t)
	default:
		err = fmt.Errorf("network mode %q", s.NetworkMode)
	}
	if err != nil {
		return t, fmt.Errorf("start task %s: %w", s.ID, err)
	}
	return t, nil
}

func (e *Engine) number() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tasks++
	return e.tasks
}

func (e *Engine) startAwsvpc(ctx context.Context, t *Task, n int) error {
	h := &container.HostConfig{NetworkMode: "none"}
	if t.Addr6.IsValid() {
		h.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "0"} // Docker's begin without
	}
	pause, err := e.pause(ctx, t, "~internal~ecs~pause", h)
	if err != nil {
		return err
	}
	addr, err := e.plug(pause.PID, t.Addr, t.Addr6, n)
	if err != nil {
		return fmt.Errorf("make its interface: %w", err)
	}
	t.Addr, pause.Addr = addr, addr.Addr()
	t.Pauses = append(t.Pauses, *pause)
	for _, s := range t.TaskSpec.Containers {
		h := &container.HostConfig{NetworkMode: container.NetworkMode("container:" + pause.ID)}
		c, err := e.start(ctx, t, s, h)
		if err != nil {
			return err
		}
		c.Addr = pause.Addr
		t.Containers = append(t.Containers, *c)
	}
	return nil
}

func (e *Engine) startPlain(ctx context.Context, t *Task) error {
	for _, s := range t.TaskSpec.Containers {
		h := e.network(t)
		if t.NetworkMode == "bridge" && t.Pause {
			ports(h, s.Ports)
			pause, err := e.pause(ctx, t, "~internal~ecs~pause-"+s.Name, h)
			if err != nil {
				return err
			}
			t.Pauses = append(t.Pauses, *pause)
			s.Ports = nil
			h = &container.HostConfig{NetworkMode: container.NetworkMode("container:" + pause.ID)}
		}
		if t.NetworkMode == "bridge" {
			ports(h, s.Ports)
		}
		c, err := e.start(ctx, t, s, h)
		if err != nil {
			return err
		}
		if t.Pause && len(t.Pauses) > 0 {
			pause := t.Pauses[len(t.Pauses)-1]
			c.Addr, c.Host = pause.Addr, pause.Host
		}
		t.Containers = append(t.Containers, *c)
	}
	return nil
}

// network is for a container that has a network mode of its own.
func (e *Engine) network(t *Task) *container.HostConfig {
	return &container.HostConfig{NetworkMode: container.NetworkMode(t.NetworkMode), DNS: t.DNS, ExtraHosts: t.ExtraHosts}
}

func ports(h *container.HostConfig, ports []Port) {
	h.PortBindings = network.PortMap{}
	for _, p := range ports {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		port, _ := network.PortFrom(p.Container, network.IPProtocol(p.Protocol))
		host := ""
		if p.Host != 0 {
			host = strconv.Itoa(int(p.Host))
		}
		h.PortBindings[port] = append(h.PortBindings[port], network.PortBinding{HostPort: host})
	}
}

// pauseImage holds a shell that waits, and ends at once when it is stopped.
const pauseImage = "amazon/amazon-ecs-pause:0.1.0"

func (e *Engine) pause(ctx context.Context, t *Task, name string, h *container.HostConfig) (*Container, error) {
	if err := e.loadPause(ctx); err != nil {
		return nil, err
	}
	h.DNS, h.ExtraHosts = t.DNS, t.ExtraHosts
	return e.start(ctx, t, ContainerSpec{Name: name, Image: pauseImage}, h)
}

func (e *Engine) loadPause(ctx context.Context) error {
	e.imageMu.Lock()
	defer e.imageMu.Unlock()
	if e.paused {
		return nil
	}
	err := e.Image(ctx, pauseImage, map[string]string{"/bin/busybox": "/bin/busybox", "/bin/sh": "/bin/busybox"}, Config{
		Entrypoint: []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 3600 & wait $!; done"},
	})
	e.paused = err == nil
	return err
}

// start creates and starts one container.
func (e *Engine) start(ctx context.Context, t *Task, s ContainerSpec, h *container.HostConfig) (*Container, error) {
	labels := map[string]string{}
	for k, v := range s.Labels {
		labels[k] = v
	}
	labels["com.amazonaws.ecs.cluster"] = t.Cluster
	labels["com.amazonaws.ecs.container-name"] = s.Name
	labels["com.amazonaws.ecs.task-arn"] = t.ARN
	labels["com.amazonaws.ecs.task-definition-family"] = t.Family
	labels["com.amazonaws.ecs.task-definition-version"] = strconv.Itoa(t.Revision)
	h.CgroupParent = e.Cgroup() + "/ecs/" + t.ID
	h.Binds = s.Binds
	if s.Init {
		h.Init = &s.Init
	}
	if s.Restart {
		h.RestartPolicy.Name = container.RestartPolicyOnFailure
	}
	exposed := network.PortSet{}
	for port := range h.PortBindings {
		exposed[port] = struct{}{}
	}
	plain := strings.NewReplacer("~", "", "_", "").Replace(s.Name)
	made, err := e.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: fmt.Sprintf("ecs-%s-%d-%s-%s", t.Family, t.Revision, plain, t.ID[len(t.ID)-20:]),
		Config: &Config{
			Image: s.Image, Entrypoint: s.Entrypoint, Cmd: s.Cmd, Env: s.Env, Labels: labels,
			Healthcheck: s.HealthCheck, StopSignal: s.StopSignal, ExposedPorts: exposed,
		},
		HostConfig: h,
	})
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", s.Name, err)
	}
	if _, err := e.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return nil, fmt.Errorf("start container %s: %w", s.Name, err)
	}
	return e.look(ctx, made.ID, s.Name)
}

func (e *Engine) look(ctx context.Context, id, name string) (*Container, error) {
	got, err := e.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", name, err)
	}
	c := &Container{ID: id, Name: name, PID: got.Container.State.Pid, Host: map[uint16]uint16{}}
	s := got.Container.NetworkSettings
	if bridge := s.Networks["bridge"]; bridge != nil {
		c.Addr = bridge.IPAddress
	}
	for port, bindings := range s.Ports {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("inspect container %s: host port %q", name, b.HostPort)
			}
			c.Host[port.Num()] = uint16(n)
		}
	}
	return c, nil
}

// StopTask stops a task as the agent does: its containers, which have grace to
// end after their stop signal, and then the pause containers; and removes them.
// grace is in whole seconds.
func (e *Engine) StopTask(ctx context.Context, t *Task, grace time.Duration) error {
	errs := make(chan error, len(t.Containers))
	for _, c := range t.Containers {
		go func() { errs <- e.stop(ctx, c.ID, grace) }()
	}
	var all []error
	for range t.Containers {
		all = append(all, <-errs)
	}
	for _, c := range t.Pauses {
		all = append(all, e.stop(ctx, c.ID, grace))
	}
	for _, c := range append(t.Containers, t.Pauses...) {
		_, err := e.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		all = append(all, err)
	}
	all = append(all, owned.RemoveCgroup(e.name+"/ecs/"+t.ID))
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("stop task %s: %w", t.ID, err)
	}
	return nil
}

func (e *Engine) stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(grace / time.Second)
	_, err := e.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
	return err
}
