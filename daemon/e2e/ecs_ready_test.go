package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// check is a health check of a container that runs a command of the app.
func check(args ...string) *docker.HealthCheck {
	return &docker.HealthCheck{
		Test:     append([]string{"CMD", "/app"}, args...),
		Interval: 300 * time.Millisecond, Timeout: 2 * time.Second, StartPeriod: time.Millisecond, Retries: 2,
	}
}

// health waits until Docker says so of a container.
func (i *instance) health(c *docker.Container, want string) {
	i.Helper()
	i.eventually(20*time.Second, func() error {
		got, err := i.engine.ContainerInspect(i.Context(), c.ID, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if h := got.Container.State.Health; h == nil || string(h.Status) != want {
			return fmt.Errorf("docker says of %s: %+v, want %s", c.Name, h, want)
		}
		return nil
	})
}

// exec runs the app in a container and returns what it says.
func (i *instance) exec(c *docker.Container, args ...string) string {
	i.Helper()
	made, err := i.engine.ExecCreate(i.Context(), c.ID, client.ExecCreateOptions{AttachStdout: true, AttachStderr: true, Cmd: append([]string{"/app"}, args...)})
	if err != nil {
		i.Fatal(err)
	}
	at, err := i.engine.ExecAttach(i.Context(), made.ID, client.ExecAttachOptions{})
	if err != nil {
		i.Fatal(err)
	}
	defer at.Close()
	out, err := docker.Demux(at.Reader)
	if err != nil {
		i.Fatal(err)
	}
	return out
}

// TestECSReadiness: a task asks whether it is ready from inside, its health
// check may be that question, and without a daemon nobody waits for an answer.
func TestECSReadiness(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	for _, mode := range []string{"awsvpc", "bridge"} {
		spec := docker.TaskSpec{NetworkMode: mode, Family: mode, Containers: []docker.ContainerSpec{{
			Name: "main", Image: "app", Labels: serves(mode, 8080, ""), Cmd: []string{"serve", ":8080", mode, "4s"},
			HealthCheck: check("get", readyURL), Ports: []docker.Port{{Container: 8080}},
		}}}
		if mode == "awsvpc" {
			spec.Containers[0].Ports = nil
		}
		task := i.spec(spec)
		main := task.Container("main")
		i.eventually(3*time.Second, func() error {
			if got := i.exec(main, "get", readyURL); !strings.Contains(got, "status 503: not ready") {
				return fmt.Errorf("%s: before it listens it is told %q", mode, got)
			}
			return nil
		})
		i.health(main, "healthy")
		if got := i.exec(main, "get", readyURL); !strings.HasPrefix(got, "ready") {
			t.Errorf("%s: healthy, it is told %q", mode, got)
		}
		i.active("prod/"+mode, map[string]int{"awsvpc": 1, "bridge": 2}[mode])
		i.daemon.kill()
		begun := time.Now()
		if got := i.exec(main, "get", readyURL); !strings.Contains(got, "connection refused") {
			t.Errorf("%s: without a daemon it is told %q", mode, got)
		} else if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%s: without a daemon it is refused after %s", mode, took)
		}
		i.start()
		if got := i.exec(main, "get", readyURL); !strings.HasPrefix(got, "ready") {
			t.Errorf("%s: after a crash of the daemon it is told %q", mode, got)
		}
	}
}

// TestECSHealth: a container's own health check decides whether it is served,
// one that starts and one that never was healthy are not.
func TestECSHealth(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	served := func(name string, cmd []string, c *docker.HealthCheck) *docker.Task {
		return i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: name, Containers: []docker.ContainerSpec{
			{Name: "main", Image: "app", Labels: serves("web", 8080, ""), Cmd: cmd, HealthCheck: c},
			// The check of the first asks the second, which the test ends and starts.
			{Name: "oracle", Image: "app", Cmd: []string{"serve", ":9090", "well"}},
		}})
	}
	good := served("good", []string{"serve", ":8080", "good"}, check("get", "http://127.0.0.1:9090/"))
	at := func(task *docker.Task) string { return task.Addr.Addr().String() + ":8080" }
	state := func(task *docker.Task, want string) {
		t.Helper()
		i.eventually(15*time.Second, func() error {
			list, err := i.known("prod/web")
			if err != nil {
				return err
			}
			for a, e := range list {
				if a.String() == at(task) && e.State == want {
					return nil
				} else if a.String() == at(task) {
					return fmt.Errorf("%s is %s (%s), want %s", task.Family, e.State, e.Reason, want)
				}
			}
			return fmt.Errorf("%s is no endpoint", task.Family)
		})
	}
	i.health(good.Container("main"), "healthy")
	state(good, "active")

	slow := check("get", "http://127.0.0.1:9090/")
	slow.Interval = time.Hour // for ever starting
	starting := served("starting", []string{"serve", ":8080", "starting"}, slow)
	bad := served("bad", []string{"serve", ":8080", "bad"}, check("get", "http://127.0.0.1:9/"))
	i.health(bad.Container("main"), "unhealthy")
	i.health(starting.Container("main"), "starting")
	state(bad, "pending")
	state(starting, "pending")
	caller := i.task("awsvpc", "caller", callsOnly, "load", "http://web/", "1s")
	if o := i.outcome(caller, "main"); o.OK == 0 || len(o.Errors) > 0 || o.Bodies["good"] != o.OK {
		t.Errorf("calls: %+v, want all at good", o)
	}

	zero := 0
	if _, err := i.engine.ContainerStop(t.Context(), good.Container("oracle").ID, client.ContainerStopOptions{Timeout: &zero, Signal: "SIGKILL"}); err != nil {
		t.Fatal(err)
	}
	i.health(good.Container("main"), "unhealthy")
	i.eventually(10*time.Second, func() error {
		for a, e := range i.endpoints("prod/web") {
			if a.String() == at(good) && e.State == "active" {
				return fmt.Errorf("unhealthy, it is %s (%s)", e.State, e.Reason)
			}
		}
		return nil
	})
}
