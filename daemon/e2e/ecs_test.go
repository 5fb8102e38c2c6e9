package e2e

import (
	"testing"
)

// TestECSModes: tasks of every network mode find one another by name with no
// other source than their labels, and a task without labels finds nobody.
func TestECSModes(t *testing.T) {
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
		stranger := i.task(mode, "stranger", nil, "get", "http://vpc/")
		if got := i.output(stranger, "main"); got == "vpc\n" {
			t.Errorf("%s: a task without labels calls vpc", mode)
		}
	}
}
