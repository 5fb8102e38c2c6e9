package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestECSDockerAway: dockerd is stopped and its containers live on. Names keep
// working, over a restart of the daemon too; what is started as soon as dockerd
// is back is found, and what ended meanwhile is forgotten.
func TestECSDockerAway(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	i.task("awsvpc", "orders", serves("orders", 8080, ""), "serve", ":8080", "orders")
	leaving := i.spec(bridged("leaving", serves("leaving", 8080, ""), "serve", ":8080", "leaving"))
	i.active("prod/orders", 1)
	i.active("prod/leaving", 2)
	caller := i.task("awsvpc", "caller", callsOnly, "load", "http://orders/", "25s")
	begun := time.Now()
	i.eventually(10*time.Second, func() error { return i.knows("caller/", true) })

	if err := i.engine.Stop(); err != nil {
		t.Fatal(err)
	}
	i.eventually(10*time.Second, func() error {
		if !i.hasProblem("docker has been away") {
			return fmt.Errorf("the status does not say that docker is away")
		}
		return nil
	})
	if n := i.metric("connectd_docker_up"); n != 0 {
		t.Errorf("connectd_docker_up is %v", n)
	}
	i.daemon.stop()
	i.start()
	for _, family := range []string{"orders/", "leaving/", "caller/"} {
		if err := i.knows(family, true); err != nil {
			t.Errorf("restarted without docker: %s", err)
		}
	}
	i.active("prod/orders", 1)
	i.active("prod/leaving", 2)

	if err := i.engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := i.task("awsvpc", "second", serves("second", 8080, ""), "serve", ":8080", "second")
	early := i.task("awsvpc", "early", callsOnly, "get", "http://orders/")
	if err := i.engine.StopTask(t.Context(), leaving, time.Second); err != nil {
		t.Error(err)
	}
	i.active("prod/second", 1)
	if got := i.output(early, "main"); got != "orders\n" {
		t.Errorf("started as soon as docker is back: %q; second is %s", got, second.ID)
	}
	i.eventually(10*time.Second, func() error { return i.knows("leaving/", false) })
	o := i.outcome(caller, "main")
	if len(o.Errors) > 0 || o.OK < 50 || o.Bodies["orders"] != o.OK {
		t.Errorf("while docker was away %d calls worked, errors %v, who answered %v", o.OK, o.Errors, o.Bodies)
	}
	t.Logf("%d calls, the test took %s", o.OK, time.Since(begun).Round(time.Second))
}

// knows is an error unless the daemon has an attached task whose name begins
// so, or has none.
func (i *instance) knows(prefix string, want bool) error {
	got := false
	tasks, err := i.control().Tasks(context.Background())
	if err != nil {
		return err
	}
	for _, t := range tasks {
		got = got || len(t.Name) > len(prefix) && t.Name[:len(prefix)] == prefix && (t.Attached || !want)
	}
	if got != want {
		return fmt.Errorf("a task %s... is known and attached: %v, want %v", prefix, got, want)
	}
	return nil
}
