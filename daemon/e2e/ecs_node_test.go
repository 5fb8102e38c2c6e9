package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// instance is a container instance: a node with a Docker whose containers are
// arranged as the ECS agent does it.
type instance struct {
	*node
	engine *docker.Engine
	dns    *upstream
}

var appBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv(dirEnv), "app")
	return path, docker.Build(context.Background(), "connectd/daemon/e2e/app", path)
})

// newInstance makes an instance with the image "app", and starts nothing.
// more are lines of the config's ecs block.
func newInstance(tb testing.TB, more ...string) *instance {
	tb.Helper()
	need(tb, "dockerd")
	return newInstanceOn(newNode(tb), more...)
}

// newInstanceOn has a node run Docker.
func newInstanceOn(n *node, more ...string) *instance {
	n.Helper()
	need(n, "dockerd")
	tb := n.TB
	i := &instance{node: n, dns: n.upstream("outside.example")}
	i.engine = docker.Start(tb, docker.Options{NS: n.host.NS(), Network: docker.Network{
		NS: n.w.NS(), Bridge: "br0", First: netip.MustParsePrefix("10.66.0.100/24"), Router: netip.MustParseAddr("10.66.0.1"),
	}})
	app, err := appBinary()
	if err != nil {
		tb.Fatal(err)
	}
	if err := i.engine.Image(tb.Context(), "app", map[string]string{"/app": app}, docker.Config{Entrypoint: []string{"/app"}}); err != nil {
		tb.Fatal(err)
	}
	i.configureECS(more...)
	return i
}

func (i *instance) configureECS(more ...string) {
	i.write("connectd.yaml", fmt.Sprintf("stateDir: %s\nbpffs: %s\ncontrolSocket: %s\n"+
		"limits: {maxConnections: 32768, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}\n%s"+
		"ecs:\n  docker: %s\n%s", i.path("state"), i.bpffs, i.path("sock"), i.extra, i.engine.Host(), indent(more)))
}

func indent(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("  " + l + "\n")
	}
	return b.String()
}

// task starts a task of one container "main" that runs the app.
func (i *instance) task(mode, family string, labels map[string]string, cmd ...string) *docker.Task {
	i.Helper()
	return i.spec(docker.TaskSpec{NetworkMode: mode, Family: family, Containers: []docker.ContainerSpec{{Name: "main", Image: "app", Labels: labels, Cmd: cmd}}})
}

func (i *instance) spec(s docker.TaskSpec) *docker.Task {
	i.Helper()
	s.DNS = []netip.Addr{i.dns.Addr4()}
	t, err := i.engine.Task(i.Context(), s)
	if err != nil {
		i.Fatalf("%s\n%s", err, i.engine.Log(20))
	}
	return t
}

// serves are the labels of a task that serves one port under a name; more is
// merged into the port mapping.
func serves(name string, port int, more string) map[string]string {
	return map[string]string{
		"connectd.serviceConnect": fmt.Sprintf(`{"enabled": true, "namespace": "prod", "services": [{"portName": "p", "discoveryName": %q, "clientAliases": [{"port": 80, "dnsName": %q}]}]}`, name, name),
		"connectd.ports":          fmt.Sprintf(`[{"name": "p", "containerPort": %d%s}]`, port, more),
	}
}

var callsOnly = map[string]string{"connectd.serviceConnect": `{"enabled": true, "namespace": "prod"}`}

// outcome waits for a container to end and reads what it said.
func (i *instance) outcome(t *docker.Task, name string) (o appOutcome) {
	i.Helper()
	out := i.output(t, name)
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		i.Fatalf("%s said %q: %s", t.Family, out, err)
	}
	return o
}

func (i *instance) output(t *docker.Task, name string) string {
	i.Helper()
	out, err := i.ended(i.Context(), t.Container(name).ID)
	if err != nil {
		i.Fatalf("container of %s: %s", t.Family, err)
	}
	return out
}

// ended waits for a container to end and returns what it wrote.
func (i *instance) ended(ctx context.Context, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	wait := i.engine.ContainerWait(ctx, id, client.ContainerWaitOptions{})
	select {
	case err := <-wait.Error:
		return "", fmt.Errorf("wait for its end: %w", err)
	case <-wait.Result:
	}
	return i.engine.Output(ctx, id)
}

// appOutcome is Outcome of package app.
type appOutcome struct {
	OK     int
	Errors map[string]int
	Early  string
	After  time.Duration
	Bodies map[string]int
}

// active waits until a service has so many endpoints that take connections.
func (i *instance) active(service string, want int) {
	i.Helper()
	i.eventually(20*time.Second, func() error {
		list, err := i.known(service)
		if err != nil {
			return err
		}
		got, states := 0, ""
		for at, e := range list {
			states += fmt.Sprintf(" %s %s (%s)", at, e.State, e.Reason)
			if e.State == "active" {
				got++
			}
		}
		if got != want {
			return fmt.Errorf("%d endpoints of %s are active, want %d:%s", got, service, want, states)
		}
		return nil
	})
}

// bridged is a task in bridge mode that publishes its port 8080.
func bridged(family string, labels map[string]string, cmd ...string) docker.TaskSpec {
	return docker.TaskSpec{NetworkMode: "bridge", Family: family, Containers: []docker.ContainerSpec{
		{Name: "main", Image: "app", Labels: labels, Cmd: cmd, Ports: []docker.Port{{Container: 8080}}},
	}}
}
