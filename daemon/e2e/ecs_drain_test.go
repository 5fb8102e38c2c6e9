package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// TestECSRolling replaces tasks of a service of HTTP and one of TCP under load,
// whose programs end at once when they are told to. With the documented recipe,
// a container that is stopped before them, nothing is lost. Without it what is
// lost is shown, and no request of HTTP that may be sent again is.
func TestECSRolling(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	block := `{"enabled": true, "namespace": "prod", "services": [
		{"portName": "http", "clientAliases": [{"port": 80, "dnsName": "http"}]}, {"portName": "tcp", "clientAliases": [{"port": 80, "dnsName": "tcp"}]}]}`
	start := func(name string) *docker.Task {
		t.Helper()
		return i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: "shop", Containers: []docker.ContainerSpec{
			{Name: "web", Image: "app", Cmd: []string{"serve", ":8080", name}, Labels: map[string]string{"connectd.serviceConnect": block,
				"connectd.ports": `[{"name": "http", "containerPort": 8080, "appProtocol": "http"}]`}},
			{Name: "raw", Image: "app", Cmd: []string{"serve", ":8081", name}, Labels: map[string]string{"connectd.ports": `[{"name": "tcp", "containerPort": 8081}]`}},
			{Name: "drain", Image: "app", Cmd: []string{"drain", "3s"}},
		}})
	}
	active := func(n int) {
		t.Helper()
		i.active("prod/http", n)
		i.active("prod/tcp", n)
	}
	stop := func(id string, seconds int) {
		if _, err := i.engine.ContainerStop(i.Context(), id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
			t.Error(err)
		}
	}
	replace := func(old *docker.Task, name string, recipe bool) (fresh *docker.Task) {
		t.Helper()
		fresh = start(name)
		active(3)
		if recipe { // ECS stops what depends on others first
			stop(old.Container("drain").ID, 15)
		}
		if err := i.engine.StopTask(t.Context(), old, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		active(2)
		return fresh
	}
	// under runs a step under load, and returns what became of it.
	under := func(step func()) (http, tcp appOutcome) {
		t.Helper()
		caller := i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: "caller", Containers: []docker.ContainerSpec{
			{Name: "http", Image: "app", Labels: callsOnly, Cmd: []string{"requests", "http://http/", "90s"}},
			{Name: "tcp", Image: "app", Cmd: []string{"load", "http://tcp/", "90s"}},
		}})
		step()
		var both sync.WaitGroup
		for _, c := range caller.Containers {
			both.Go(func() { stop(c.ID, 15) })
		}
		both.Wait()
		return i.outcome(caller, "http"), i.outcome(caller, "tcp")
	}

	a, b := start("a"), start("b")
	active(2)
	var c *docker.Task
	http, tcp := under(func() {
		c = replace(a, "c", true)
		replace(b, "d", true)
	})
	for kind, o := range map[string]appOutcome{"http": http, "tcp": tcp} {
		t.Logf("%s with the recipe: %d well, by %v", kind, o.OK, o.Bodies)
		if len(o.Errors) > 0 || o.Bodies["c"] == 0 || o.Bodies["d"] == 0 {
			t.Errorf("%s with the recipe: %+v, want none lost and both new tasks called", kind, o)
		}
	}
	http, tcp = under(func() { replace(c, "e", false) })
	t.Logf("without the recipe: http %+v, tcp %+v", http, tcp)
	if len(http.Errors) > 0 || http.Bodies["e"] == 0 || tcp.Bodies["e"] == 0 {
		t.Errorf("without the recipe: http %+v, tcp %+v, want no GET lost", http, tcp)
	}
}
