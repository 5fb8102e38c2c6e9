package install

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// TestContainer: with the namespaces, capabilities and the read-only root of the
// template, and Docker's own list of system calls, a container does what the
// daemon has to do in the kernel: the doctor's canary connection succeeds. With
// a capability less it does not.
func TestContainer(t *testing.T) {
	daemon := containers(t, newStack(t, read(t, templateFile), usual))["connectd"]
	if daemon["ReadonlyRootFilesystem"] != true {
		t.Error("the template's root is not read-only")
	}
	binary := buildStatic(t)
	e := docker.Start(t, docker.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conf := filepath.Join(t.TempDir(), "connectd.yaml")
	write(t, conf, "catalog: {files: [catalog.yaml]}\n", 0o644)
	write(t, filepath.Join(filepath.Dir(conf), "catalog.yaml"), "namespace: prod\nservices: []\n", 0o644)
	if err := e.Image(ctx, "connectd", map[string]string{"/connectd": binary}, docker.Config{Entrypoint: []string{"/connectd"}, User: "0:0"}); err != nil {
		t.Fatal(err)
	}
	caps := containerCapabilities(t)
	canary := func(caps []string) (bool, string) {
		made, err := e.ContainerCreate(ctx, client.ContainerCreateOptions{
			Config: &docker.Config{Image: "connectd", Cmd: []string{"doctor"}},
			HostConfig: &container.HostConfig{
				NetworkMode: "host", PidMode: "host", ReadonlyRootfs: true, CapAdd: caps, CapDrop: []string{"ALL"},
				Binds: []string{"/sys/fs/cgroup:/sys/fs/cgroup", "/sys/fs/bpf:/sys/fs/bpf", filepath.Dir(conf) + ":/etc/connectd:ro"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
			t.Fatalf("%s\n%s", err, e.Log(20))
		}
		wait := e.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{})
		select {
		case err := <-wait.Error:
			t.Fatal(err)
		case <-wait.Result:
		}
		out, err := e.Output(ctx, made.ID)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`(?m)^ok +canary connection `).MatchString(out), out
	}
	if ok, out := canary(caps); !ok || strings.Contains(out, "operation not permitted") {
		t.Errorf("with %v the doctor says\n%s", caps, out)
	}
	if ok, out := canary(caps[1:]); ok {
		t.Errorf("without %s the doctor says\n%s", caps[0], out)
	}
}
