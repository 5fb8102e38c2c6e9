package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// TestClusterECS: tasks of a container instance, in awsvpc and in bridge mode,
// are called by name from another node, as Cloud Map has them: by their own
// address, and by the node's with the port that Docker chose. They call what
// that node publishes. One that is stopped drains, as the other node sees, and
// is deregistered when it has gone, without a failed GET.
func TestClusterECS(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	lap := func(what string) { t.Logf("%5.1f s: %s", time.Since(begun).Seconds(), what) }
	c := newCluster(t, "B")
	b := c.nodes["B"]
	n := newNodeIn(t, c.w, "docker")
	n.env, n.extra = c.account("docker", n.host), sharesProd
	i := newInstanceOn(n, "namespaces: [prod]")
	pay := c.w.Host("pay")
	startWeb(pay, "pay")
	b.catalog(published("pay", "appProtocol: http\n", netip.AddrPortFrom(pay.Addr4(), 8080)))
	c.start()
	i.start()
	lap("ready")

	labels := serves("orders", 8080, `, "appProtocol": "http"`)
	drain := docker.ContainerSpec{Name: "drain", Image: "app", Cmd: []string{"drain", "6s"}}
	bridge := bridged("bridge", labels, "serve", ":8080", "bridge")
	bridge.Containers = append(bridge.Containers, drain)
	i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: "vpc", Containers: []docker.ContainerSpec{{Name: "main", Image: "app", Labels: labels, Cmd: []string{"serve", ":8080", "vpc"}}}})
	leaving := i.spec(bridge)

	known := func() (states []string, err error) {
		if _, err := b.resolve("orders"); err != nil {
			return nil, err
		}
		list, err := b.known("prod/orders")
		for _, e := range list {
			if e.Address.Addr().Is4() {
				states = append(states, e.State)
			}
		}
		slices.Sort(states)
		return states, err
	}
	see := func(within time.Duration, want ...string) {
		t.Helper()
		b.eventually(within, func() error {
			if got, err := known(); err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("B sees orders as %v, want %v: %v", got, want, err)
			}
			return nil
		})
	}
	see(20*time.Second, "active", "active")
	lap("both are seen")
	ports := map[string]string{} // by address
	for _, in := range c.instances("cd--orders") {
		ports[in["AWS_INSTANCE_IPV4"]] = in["AWS_INSTANCE_PORT"]
	}
	if p := ports[i.host.Addr4().String()]; len(ports) != 2 || p == "" || p == "8080" {
		t.Errorf("Cloud Map has orders at %v, want the task's own address, and %s with a port of the node's", ports, i.host.Addr4())
	}

	vip, err := b.resolve("orders")
	if err != nil {
		t.Fatal(err)
	}
	stop := b.getting("http://"+at(vip, 80)+"/", http.MethodGet)
	caller := i.task("awsvpc", "caller", callsOnly, "get", "http://pay/")
	if got := i.output(caller, "main"); got != "pay\n" {
		t.Errorf("a task that calls what B publishes says %q", got)
	}
	lap("a task has called")
	seconds := 30
	ended := make(chan error, 1)
	go func() {
		_, err := i.engine.ContainerStop(t.Context(), leaving.Container("drain").ID, client.ContainerStopOptions{Timeout: &seconds})
		ended <- err
	}()
	see(15*time.Second, "active", "draining")
	lap("its draining is seen")
	if err := <-ended; err != nil { // ECS stops the rest then
		t.Error(err)
	}
	if err := i.engine.StopTask(t.Context(), leaving, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	b.eventually(15*time.Second, func() error {
		if left := c.instances("cd--orders"); len(left) != 1 {
			return fmt.Errorf("instances of orders are %v, want one", slices.Collect(maps.Keys(left)))
		}
		return nil
	})
	lap("it is deregistered")
	got := stop()
	t.Logf("%+v", got)
	if len(got.Errors) > 0 || got.By["vpc"] == 0 || got.By["bridge"] == 0 {
		t.Errorf("the client saw %+v, want none failed, and both tasks", got)
	}
}
