package docker

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
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
	t.Log(said, e.driver)
	for _, want := range []string{"I am " + id[:12], "172.17.0.2", "0::" + e.Cgroup() + "/docker/" + id} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
}
