package docker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"connectd/pkg/testutil"
	"connectd/pkg/testutil/owned"
)

const busybox = "/bin/busybox"

// image makes an image whose shell is busybox.
func image(t *testing.T, e *Engine, name string, c Config) {
	t.Helper()
	if err := e.Image(t.Context(), name, map[string]string{busybox: busybox, "/bin/sh": busybox}, c); err != nil {
		t.Fatal(err)
	}
}

// run starts a container of the busybox image with a shell command.
func run(t *testing.T, e *Engine, script string, h *container.HostConfig) string {
	t.Helper()
	made, err := e.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config: &Config{Image: "busybox", Cmd: []string{"/bin/sh", "-c", script}}, HostConfig: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatalf("%s\n%s", err, e.Log(20))
	}
	return made.ID
}

// TestContainer: a container of an image from scratch runs, says something and
// ends.
func TestContainer(t *testing.T) {
	e := Start(t, Options{})
	image(t, e, "busybox", Config{})
	id := run(t, e, "echo I am $(hostname); ip addr show eth0; cat /proc/self/cgroup; exit 7", nil)
	wait := e.ContainerWait(t.Context(), id, client.ContainerWaitOptions{})
	select {
	case err := <-wait.Error:
		t.Fatal(err)
	case end := <-wait.Result:
		if end.StatusCode != 7 {
			t.Errorf("exit status %d", end.StatusCode)
		}
	}
	said, err := e.Output(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"I am " + id[:12], "172.17.0.2", "0::" + e.Cgroup() + "/docker/" + id} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
}

// TestTwoAtOnce: two engines have the same names, ports and addresses, and
// neither sees the other's.
func TestTwoAtOnce(t *testing.T) {
	a, b := Start(t, Options{}), Start(t, Options{})
	for _, e := range []*Engine{a, b} {
		image(t, e, "busybox", Config{})
		task, err := e.Task(t.Context(), TaskSpec{NetworkMode: "bridge", Containers: []ContainerSpec{{
			Name: "web", Image: "busybox", Cmd: []string{"/bin/sh", "-c", "exec sleep 1000"}, Ports: []Port{{Container: 80, Host: 8080}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := task.Containers[0].Host[80]; got != 8080 {
			t.Errorf("published at %d", got)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	list, err := b.ContainerList(t.Context(), client.ContainerListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("the other engine has %d containers: %v", len(list.Items), err)
	}
}

// TestRestart: containers live on while dockerd is stopped, killed and started.
func TestRestart(t *testing.T) {
	e := Start(t, Options{})
	image(t, e, "busybox", Config{})
	id := run(t, e, "exec sleep 1000", nil)
	pid := func() int {
		t.Helper()
		got, err := e.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return got.Container.State.Pid
	}
	before := pid()
	if err := e.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := pid(); now != before {
		t.Errorf("process %d became %d", before, now)
	}
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ping(t.Context(), client.PingOptions{}); err == nil {
		t.Error("a killed dockerd answers")
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := pid(); now != before || syscall.Kill(before, 0) != nil {
		t.Errorf("process %d became %d", before, now)
	}
}

// leaveEnv has TestLeave be the process that TestSwept kills.
const leaveEnv = "CONNECTD_TEST_LEAVE_DOCKER"

func TestLeave(t *testing.T) {
	dir := os.Getenv(leaveEnv)
	if dir == "" {
		return
	}
	e := Start(t, Options{Dir: dir})
	image(t, e, "busybox", Config{})
	id := run(t, e, "exec sleep 1000", &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}})
	fmt.Println("made", e.name, id)
	select {}
}

// TestSwept: what a killed process's engine left goes with the next engine.
func TestSwept(t *testing.T) {
	testutil.RequireRoot(t)
	dir, err := os.MkdirTemp("", "sweep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestLeave$")
	cmd.Env = append(os.Environ(), leaveEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var name, id string
	if _, err := fmt.Fscanf(out, "made %s %s\n", &name, &id); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(left(t, dir, name), filepath.Join(dir, name)) {
		t.Fatal("the engine of a living process was swept")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !slices.ContainsFunc(left(t, dir, name), func(s string) bool { return strings.Contains(s, "process") }) {
		t.Error("no process was left: the test tests nothing")
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if now := left(t, dir, name); len(now) > 0 {
		t.Errorf("left after the sweep: %q", now)
	}
}

// TestNothingLeft: an engine with containers of all kinds leaves nothing.
func TestNothingLeft(t *testing.T) {
	e := Start(t, Options{})
	name, dir := e.name, e.opts.Dir
	image(t, e, "busybox", Config{})
	run(t, e, "exec sleep 1000", &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}})
	run(t, e, "exec sleep 1000", &container.HostConfig{PidMode: "host", NetworkMode: "host"})
	inode := e.NS().Inode()
	if len(left(t, dir, name)) == 0 {
		t.Error("nothing is there: the test tests nothing")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if now := left(t, dir, name); len(now) > 0 {
		t.Errorf("left: %q", now)
	}
	testutil.Eventually(t, 5*time.Second, func() error {
		if testutil.NetnsAlive(inode) {
			return errors.New("its network namespace is alive")
		}
		return nil
	})
}

// left lists what is there of an engine: folders, cgroups, mounts, processes.
func left(t *testing.T, dir, name string) (found []string) {
	t.Helper()
	root, err := owned.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{dir + "/" + name, root + "/" + name, "/sys/fs/cgroup/*/" + name} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), name) {
		found = append(found, "a mount")
	}
	cgroups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, path := range cgroups {
		text, _ := os.ReadFile(path)
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if strings.Contains(string(text), name) && owned.Alive(pid) {
			found = append(found, "process "+path)
		}
	}
	return found
}
