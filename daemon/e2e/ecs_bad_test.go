package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/testutil/docker"
)

// name is what connectd calls a task.
func name(t *docker.Task) string { return t.Family + "/" + t.ID }

// hosts is a container's hosts file as Docker keeps it.
func (i *instance) hosts(t *docker.Task, container string) string {
	i.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/hosts", t.Container(container).PID))
	if err != nil {
		i.Fatal(err)
	}
	return string(b)
}

// problem waits until a task's problem is told everywhere, and checks that it
// is told once.
func (i *instance) problem(t *docker.Task, reason string) {
	i.Helper()
	i.eventually(20*time.Second, func() error {
		page, err := i.control().Events(i.Context(), control.EventFilter{Kinds: []string{"problem"}})
		if err != nil {
			return err
		}
		told := uint64(0)
		for _, e := range page.Events {
			if e.Task == name(t) && e.Reason == reason {
				told += e.Times
			}
		}
		if told != 1 {
			return fmt.Errorf("%s of %s is told %d times, want once: %+v", reason, name(t), told, page.Events)
		}
		return nil
	})
	if !i.daemon.logged("task is not as it asks to be", name(t), "reason="+reason) && !i.daemon.logged(name(t), `"reason":"`+reason+`"`) {
		i.Errorf("%s of %s is not in the log", reason, name(t))
	}
	if out, _ := i.cli("events"); !strings.Contains(out, reason) {
		i.Errorf("connectd events has no %s:\n%s", reason, out)
	}
	if n := i.metric("connectd_task_problems_total", "reason", reason); n < 1 {
		i.Errorf("connectd_task_problems_total{reason=%q} is %v", reason, n)
	}
}

// inStatus waits until status has words, or has them no more.
func (i *instance) inStatus(want bool, words ...string) {
	i.Helper()
	i.eventually(10*time.Second, func() error {
		all := fmt.Sprintf("%+v", i.status().Problems)
		for _, w := range words {
			if strings.Contains(all, w) != want {
				return fmt.Errorf("status has %q: %v, want %v: %s", w, !want, want, all)
			}
		}
		return nil
	})
}

// TestECSBadLabels: what is wrong with a task is told once, everywhere, and the
// task beside it works.
func TestECSBadLabels(t *testing.T) {
	t.Parallel()
	i := newInstance(t, "namespaces: [prod]", `publish: [{family: "good*", discoveryNames: [good, clash]}, {family: "*", discoveryNames: [bad, clash, local, none]}]`)
	labelled := callsOnly["connectd.serviceConnect"]
	app, err := appBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := i.engine.Image(t.Context(), "named", map[string]string{"/app": app}, docker.Config{
		Entrypoint: []string{"/app"}, Labels: map[string]string{"connectd.serviceConnect": labelled}}); err != nil {
		t.Fatal(err)
	}
	i.start()
	noted := serves("good", 8080, "")
	noted["connectd.serviceConnect"] = strings.Replace(noted["connectd.serviceConnect"], `"portName"`, `"ingressPortOverride": 15000, "portName"`, 1)
	good := i.task("awsvpc", "good", noted, "serve", ":8080", "good")
	i.active("prod/good", 1)
	i.problem(good, "not_applied")
	if out, _ := i.cli("tasks"); !strings.Contains(out, "not_applied") {
		t.Errorf("connectd tasks does not show the remark:\n%s", out)
	}
	works := func(t *testing.T) {
		t.Helper()
		caller := i.task("awsvpc", "caller", callsOnly, "get", "http://good/")
		if got := i.output(caller, "main"); got != "good\n" {
			t.Errorf("the task beside it: %q", got)
		}
	}
	end := func(task *docker.Task) {
		if err := i.engine.StopTask(i.Context(), task, 0); err != nil {
			i.Fatal(err)
		}
	}
	service := func(fields string) map[string]string {
		l := serves("bad", 8080, "")
		l["connectd.serviceConnect"] = strings.Replace(l["connectd.serviceConnect"], `"portName": "p"`, `"portName": "p"`+fields, 1)
		return l
	}
	var ended sync.WaitGroup
	for reason, labels := range map[string]map[string]string{
		"invalid_json":          {"connectd.serviceConnect": `{"enabled": tru`},
		"invalid_field":         service(`, "timeout": "soon"`),
		"tls":                   service(`, "tls": {"kmsKey": "k"}`),
		"test_traffic_rules":    {"connectd.ports": `[{"name": "p", "containerPort": 8080}]`, "connectd.serviceConnect": `{"enabled": true, "namespace": "prod", "services": [{"portName": "p", "discoveryName": "bad", "clientAliases": [{"port": 80, "testTrafficRules": {"header": {"name": "x"}}}]}]}`},
		"name_not_allowed":      serves("payments", 8080, ""),
		"namespace_not_allowed": {"connectd.serviceConnect": `{"enabled": true, "namespace": "secret"}`},
	} {
		t.Run(reason, func(t *testing.T) {
			bad := i.task("bridge", "bad", labels, "serve", ":8080", "bad")
			i.problem(bad, reason)
			i.inStatus(true, name(bad), reason)
			ended.Go(func() {
				if err := i.engine.StopTask(i.Context(), bad, 0); err != nil {
					i.Error(err)
				}
			})
		})
	}
	ended.Wait()
	i.inStatus(false, "bad/")
	works(t)
	t.Run("image label", func(t *testing.T) {
		bad := i.spec(docker.TaskSpec{NetworkMode: "awsvpc", Family: "bad", Containers: []docker.ContainerSpec{{Name: "main", Image: "named", Cmd: []string{"get", "http://good/"}}}})
		if got := i.output(bad, "main"); got == "good\n" {
			t.Error("an image's label lets a task join")
		}
		i.problem(bad, "image_label")
		end(bad)
	})
	t.Run("alias", func(t *testing.T) {
		labels := serves("clash", 8080, "")
		labels["connectd.serviceConnect"] = strings.Replace(labels["connectd.serviceConnect"], `"dnsName": "clash"`, `"dnsName": "good"`, 1)
		bad := i.task("awsvpc", "bad", labels, "serve", ":8080", "thief")
		i.eventually(15*time.Second, func() error {
			if p := fmt.Sprintf("%+v", i.status().Problems); !strings.Contains(p, "good:80") {
				return fmt.Errorf("status says nothing of the alias: %s", p)
			}
			return nil
		})
		works(t)
		end(bad)
		i.inStatus(false, "good:80")
	})
	t.Run("appProtocol", func(t *testing.T) {
		first := i.task("awsvpc", "good", serves("clash", 8080, ""), "serve", ":8080", "tcp")
		i.active("prod/clash", 1)
		second := i.task("awsvpc", "good", serves("clash", 8080, `, "appProtocol": "http"`), "serve", ":8080", "http")
		i.inStatus(true, "prod/clash")
		works(t)
		end(first)
		i.inStatus(false, "prod/clash")
		end(second)
	})
	t.Run("loopback", func(t *testing.T) {
		bad := i.task("awsvpc", "bad", serves("local", 8080, ""), "serve", "127.0.0.1:8080", "local")
		i.problem(bad, "loopback_only")
		i.inStatus(true, name(bad), "loopback_only")
		if n := len(i.endpoints("prod/local")); n > 0 {
			for at, e := range i.endpoints("prod/local") {
				if e.State == "active" {
					t.Errorf("%s takes connections", at)
				}
			}
		}
		end(bad)
	})
	works(t)
}
