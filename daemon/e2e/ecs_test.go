package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/testutil/docker"
)

// TestECSModes: tasks of every network mode find one another by name with no
// other source than their labels, and a task without labels finds nobody.
func TestECSModes(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	i.task("awsvpc", "vpc", serves("vpc", 8080, ""), "serve", ":8080", "vpc")
	i.spec(bridged("bridge", serves("bridge", 8080, ""), "serve", ":8080", "bridge"))
	i.task("host", "host", serves("host", 8090, ""), "serve", ":8090", "host")
	for _, name := range []string{"vpc", "bridge", "host"} {
		i.active("prod/"+name, map[string]int{"vpc": 1, "bridge": 2, "host": 2}[name])
	}
	for _, mode := range []string{"awsvpc", "bridge", "host"} {
		for _, name := range []string{"vpc", "bridge", "host"} {
			caller := i.task(mode, "caller", callsOnly, "get", "http://"+name+"/")
			if got := i.output(caller, "main"); got != name+"\n" {
				t.Errorf("%s calls %s: %q", mode, name, got)
			}
		}
		i.connected(mode)
		stranger := i.task(mode, "stranger", nil, "get", "http://vpc/")
		if got := i.output(stranger, "main"); got == "vpc\n" {
			t.Errorf("%s: a task without labels calls vpc", mode)
		}
	}
}

// TestECSIPv6: tasks in a subnet of both families. One that listens on both is
// two endpoints; one that listens on IPv6 alone is reached by those who have it.
func TestECSIPv6(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	last := 0xa0
	dual := func(family string, labels map[string]string, cmd ...string) *docker.Task {
		t.Helper()
		last++
		return i.spec(docker.TaskSpec{
			NetworkMode: "awsvpc", Family: family, Addr6: netip.MustParsePrefix(fmt.Sprintf("fd66::%x/64", last)),
			Containers: []docker.ContainerSpec{{Name: "main", Image: "app", Labels: labels, Cmd: cmd}},
		})
	}
	both := dual("both", serves("both", 8080, ""), "serve", ":8080", "both")
	dual("six", serves("six", 8080, ""), "serve", fmt.Sprintf("[fd66::%x]:8080", last+1), "six")
	i.active("prod/both", 2)
	i.active("prod/six", 1)
	i.inState("prod/both", netip.AddrPortFrom(both.Addr6.Addr(), 8080), "active")
	for _, name := range []string{"both", "six"} {
		caller := dual("caller", callsOnly, "get", "http://"+name+"/")
		if got := i.output(caller, "main"); got != name+"\n" {
			t.Errorf("a task with both families calls %s: %q", name, got)
		}
	}
	four := i.task("awsvpc", "four", callsOnly, "get", "http://both/")
	if got := i.output(four, "main"); got != "both\n" {
		t.Errorf("a task with IPv4 alone calls both: %q", got)
	}
	four = i.task("awsvpc", "four", callsOnly, "get", "http://six/")
	if got := i.output(four, "main"); got == "six\n" {
		t.Error("a task with IPv4 alone calls six: it has an address of IPv6")
	}
}

// connected has a task of a mode hold eight connections to vpc, and looks for
// them and nobody else's among those of the task.
func (i *instance) connected(mode string) {
	i.Helper()
	family := "holder-" + mode
	holder := i.task(mode, family, callsOnly, "requests", "http://vpc/", "1m")
	i.eventually(10*time.Second, func() error {
		tasks, err := i.control().Tasks(context.Background())
		if err != nil {
			return err
		}
		name := ""
		for _, t := range tasks {
			if strings.HasPrefix(t.Name, family+"/") {
				name = t.Name
			}
		}
		if name == "" {
			return fmt.Errorf("%s is no task", family)
		}
		all, err := i.control().Connections(context.Background(), control.ConnectionFilter{Task: name})
		if err != nil {
			return err
		}
		if len(all.Connections) != 8 {
			return fmt.Errorf("%s has %d connections, want 8", name, len(all.Connections))
		}
		for _, c := range all.Connections {
			if c.Task != name || c.Service != "prod/vpc" || c.Name != "vpc" || c.Endpoint.Port() != 8080 || c.Bytes == nil {
				return fmt.Errorf("a connection of %s is %+v", name, c)
			}
		}
		return nil
	})
	if err := i.engine.StopTask(i.Context(), holder, time.Second); err != nil {
		i.Fatal(err)
	}
}
