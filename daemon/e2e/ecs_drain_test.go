package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/testutil/docker"
)

// TestECSRolling replaces the tasks of a service under load, whose program ends
// at once when it is told to. With the documented recipe, a container that is
// stopped before it, nothing is lost. Without it what is lost is shown, and
// what may be sent again is not.
func TestECSRolling(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	replica := func(service, name, more string) *docker.Task {
		return i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: service, Containers: []docker.ContainerSpec{
			{Name: "main", Image: "app", Labels: serves(service, 8080, more), Cmd: []string{"serve", ":8080", name}},
			{Name: "drain", Image: "app", Cmd: []string{"drain", "3s"}},
		}})
	}
	roll := func(service, more, generation string, old []*docker.Task, recipe bool) (fresh []*docker.Task) {
		for k, task := range old {
			fresh = append(fresh, replica(service, fmt.Sprintf("%s%d", generation, k), more))
			i.active("prod/"+service, len(old)+1)
			if recipe { // ECS stops what depends on others first
				seconds := 15
				if _, err := i.engine.ContainerStop(t.Context(), task.Container("drain").ID, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
					t.Fatal(err)
				}
			}
			if err := i.engine.StopTask(t.Context(), task, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			i.active("prod/"+service, len(old))
		}
		return fresh
	}
	for _, kind := range []struct{ service, more, load string }{
		{"http", `, "appProtocol": "http"`, "requests"},
		{"tcp", "", "load"},
	} {
		tasks := []*docker.Task{replica(kind.service, "a0", kind.more), replica(kind.service, "a1", kind.more)}
		i.active("prod/"+kind.service, 2)
		for _, recipe := range []bool{true, false} {
			generation := map[bool]string{true: "b", false: "c"}[recipe]
			caller := i.task("awsvpc", "caller", callsOnly, kind.load, "http://"+kind.service+"/", map[bool]string{true: "24s", false: "18s"}[recipe])
			tasks = roll(kind.service, kind.more, generation, tasks, recipe)
			o := i.outcome(caller, "main")
			t.Logf("%s, recipe %v: %d well, lost %v, by %v", kind.service, recipe, o.OK, o.Errors, o.Bodies)
			if len(o.Errors) > 0 && (recipe || kind.service == "http") {
				t.Errorf("%s, recipe %v: lost %v of %d", kind.service, recipe, o.Errors, o.OK)
			}
			if o.Bodies[generation+"0"] == 0 || o.Bodies[generation+"1"] == 0 {
				t.Errorf("%s, recipe %v: not all of the new tasks were called: %v", kind.service, recipe, o.Bodies)
			}
		}
		for _, task := range tasks {
			if err := i.engine.StopTask(t.Context(), task, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}
