package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	engine "connectd/pkg/testutil/docker"
)

// TestLife follows a task's containers through what Docker does with them.
func TestLife(t *testing.T) {
	e := realDocker(t, map[string]string{"connectd.service": "the image's", "shared": "1"})
	f := follow(t, e.Host())
	f.await(t, isKnown)
	app := sleeper("app")
	app.Cmd = []string{"/bin/sh", "-c", "trap : HUP; trap 'sleep 1; exit 0' QUIT; touch /up; while :; do sleep 1000 & wait; done"}
	app.Labels = map[string]string{"connectd.ports": "[]", "shared": "1"}
	app.Ports = []engine.Port{{Container: 80}, {Container: 53, Protocol: "udp"}}
	app.HealthCheck = &engine.HealthCheck{Test: []string{"CMD", "/bin/busybox", "test", "-e", "/up"}, Interval: 50 * time.Millisecond, Retries: 1}
	task := mustTask(t, e, engine.TaskSpec{NetworkMode: "bridge", Containers: []engine.ContainerSpec{app}})
	made := task.Containers[0]

	c := f.awaitOne(t, made.ID, "healthy", func(c Container) bool { return c.State == Running && c.Health == "healthy" && len(c.Ports) > 0 })
	if c.PID != made.PID || c.Name != "ecs-app-1-app-00000000000000000001" || c.Labels["com.amazonaws.ecs.container-name"] != "app" ||
		c.Labels["connectd.ports"] != "[]" || c.Labels["connectd.service"] != "the image's" || c.ImageLabels["connectd.service"] != "the image's" ||
		c.ImageLabels["connectd.ports"] != "" || c.CgroupParent != e.Cgroup()+"/ecs/"+task.ID || c.Hostname != made.ID[:12] || c.Stopping {
		t.Errorf("%+v", c)
	}
	if !slices.ContainsFunc(c.Ports, func(p Port) bool { return p.Container == 80 && p.Protocol == "tcp" && p.Host == made.Host[80] }) ||
		!slices.ContainsFunc(c.Ports, func(p Port) bool { return p.Container == 53 && p.Protocol == "udp" }) {
		t.Errorf("ports %v, want %v", c.Ports, made.Host)
	}
	for _, file := range []string{c.HostsPath, c.ResolvConfPath, filepath.Join(c.Cgroup, "cgroup.procs")} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	procs, err := os.ReadFile(filepath.Join(c.Cgroup, "cgroup.procs"))
	if err != nil || !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(c.PID)) {
		t.Errorf("process %d is not in %s: %q, %v", c.PID, c.Cgroup, procs, err)
	}
	early := f.first(made.ID, func(c Container) bool { return c.HostsPath != "" })
	if early.State != Created || early.HostsPath != c.HostsPath {
		t.Errorf("hosts file %s was told as %s when %s", c.HostsPath, early.HostsPath, early.State)
	}

	if _, err := e.ContainerKill(t.Context(), made.ID, client.ContainerKillOptions{Signal: "HUP"}); err != nil {
		t.Fatal(err)
	}
	if err := e.StopTask(t.Context(), task, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	f.await(t, func(list []Container, _ bool) error {
		if len(list) > 0 {
			return errors.New("containers are there")
		}
		return nil
	})
	stopping := f.first(made.ID, func(c Container) bool { return c.Stopping })
	if stopping.State != Running || stopping.PID != made.PID {
		t.Errorf("first stopping: %+v", stopping)
	}
	if c := f.first(made.ID, func(c Container) bool { return c.State == Exited }); c.ID == "" || c.PID != 0 || c.Cgroup != "" {
		t.Errorf("exited: %+v", c)
	}
}

// first returns the first of what was shown of a container that is as wanted.
func (f *follower) first(id string, want func(Container) bool) Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.history, func(c Container) bool { return c.ID == id && want(c) })
	if i < 0 {
		return Container{}
	}
	return f.history[i]
}

// TestRestartPolicy: a container comes back with another process.
func TestRestartPolicy(t *testing.T) {
	e := realDocker(t, nil)
	f := follow(t, e.Host())
	f.await(t, isKnown)
	s := sleeper("app")
	s.Restart = true
	s.Cmd = []string{"/bin/sh", "-c", "[ -e /again ] && exec sleep 1000; touch /again; sleep 1; exit 1"}
	task := mustTask(t, e, engine.TaskSpec{NetworkMode: "host", Containers: []engine.ContainerSpec{s}})
	id := task.Containers[0].ID
	c := f.awaitOne(t, id, "restarted", func(c Container) bool { return c.Restarts == 1 && c.State == Running })
	before := f.first(id, running)
	if before.PID == c.PID || before.Cgroup != c.Cgroup || !c.Started.After(before.Started) {
		t.Errorf("was %+v, is %+v", before, c)
	}
	if s := f.Status(); s.EarlyStarts != 2 || s.LateStarts != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDockerAway: dockerd stops and comes back; one container ended meanwhile,
// which its cgroup tells at once.
func TestDockerAway(t *testing.T) {
	e := realDocker(t, nil)
	f := follow(t, e.Host())
	task := mustTask(t, e, engine.TaskSpec{NetworkMode: "awsvpc", Containers: []engine.ContainerSpec{sleeper("stays"), sleeper("ends")}})
	stays, ends := task.Container("stays"), task.Container("ends")
	f.awaitOne(t, stays.ID, "running", running)
	f.awaitOne(t, ends.ID, "running", running)
	if err := e.Stop(); err != nil {
		t.Fatal(err)
	}
	f.await(t, func([]Container, bool) error {
		if f.Status().Connected {
			return errors.New("connected")
		}
		return nil
	})
	if list, known := f.Containers(); len(list) != 3 || !known {
		t.Errorf("%d containers, known: %v", len(list), known)
	}
	syscall.Kill(ends.PID, syscall.SIGKILL)
	f.awaitOne(t, ends.ID, "exited", func(c Container) bool { return c.State == Exited })
	if s := f.Status(); s.Connected {
		t.Error("docker was not away")
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.await(t, func([]Container, bool) error {
		if s := f.Status(); s.Reconnects != 1 || !s.Connected {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	f.awaitOne(t, ends.ID, "exited", func(c Container) bool { return c.State == Exited })
	c := f.awaitOne(t, stays.ID, "running", running)
	if c.PID != stays.PID || c.NetworkMode != "container:"+task.Pauses[0].ID {
		t.Errorf("%+v", c)
	}
	if gone := f.first(stays.ID, func(c Container) bool { return c.State == Exited }); gone.ID != "" {
		t.Errorf("was taken for ended: %+v", gone)
	}
}

// TestBriefLives: containers that end at once, and one whose program is not
// there, disturb none that lives.
func TestBriefLives(t *testing.T) {
	e := realDocker(t, nil)
	f := follow(t, e.Host())
	f.await(t, isKnown)
	living := mustTask(t, e, engine.TaskSpec{NetworkMode: "host", Containers: []engine.ContainerSpec{sleeper("lives")}}).Containers[0]
	f.awaitOne(t, living.ID, "running", running)
	missing := sleeper("missing")
	missing.Cmd = []string{"/nowhere"}
	if _, err := e.Task(t.Context(), engine.TaskSpec{NetworkMode: "host", Containers: []engine.ContainerSpec{missing}}); err == nil {
		t.Error("a program that is not there was started")
	}
	const n = 10
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := sleeper("brief")
			s.Cmd = []string{"/bin/busybox", "true"}
			if _, err := e.Task(t.Context(), engine.TaskSpec{NetworkMode: "host", Family: fmt.Sprint("brief", i), Containers: []engine.ContainerSpec{s}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.await(t, func(list []Container, _ bool) error {
		ended := 0
		for _, c := range list {
			if c.State == Exited && c.PID == 0 && c.Labels["com.amazonaws.ecs.container-name"] == "brief" {
				ended++
			}
		}
		if ended != n || len(list) != n+2 {
			return fmt.Errorf("%d of %d have ended", ended, len(list))
		}
		return nil
	})
	if list, _ := f.Containers(); !slices.ContainsFunc(list, func(c Container) bool { return c.ID == living.ID && c.State == Running }) {
		t.Error("the one that lives is not shown so")
	}
	if gone := f.first(living.ID, func(c Container) bool { return c.State == Exited }); gone.ID != "" {
		t.Errorf("was taken for ended: %+v", gone)
	}
}

// TestStartsAtOnce: of many starts each process is known before Docker tells.
func TestStartsAtOnce(t *testing.T) {
	e := realDocker(t, nil)
	f := follow(t, e.Host())
	f.await(t, isKnown)
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := engine.TaskSpec{NetworkMode: []string{"host", "bridge"}[i%2], Family: fmt.Sprint("f", i), Containers: []engine.ContainerSpec{sleeper("app")}}
			if _, err := e.Task(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.await(t, func(list []Container, _ bool) error {
		up := 0
		for _, c := range list {
			if c.State == Running {
				up++
			}
		}
		if up != n {
			return fmt.Errorf("%d of %d run", up, len(list))
		}
		return nil
	})
	if s := f.Status(); s.EarlyStarts != n || s.LateStarts != 0 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}
