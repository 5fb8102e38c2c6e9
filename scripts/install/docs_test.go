package install

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	installDocs = "docs/install.md"
	examples    = "docs/examples/ecs/"
	readyAt     = "http://127.254.255.254/"
)

// shell runs a command as CMD-SHELL of a health check does.
func shell(t *testing.T, sh, command string, env ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, sh, "-c", command)
	cmd.Env = append(cmd.Environ(), env...)
	return run(t, cmd)
}

func example(t *testing.T, name string) object {
	t.Helper()
	var v object
	if err := json.Unmarshal([]byte(read(t, examples+name)), &v); err != nil {
		t.Fatalf("%s: %s", name, err)
	}
	return v
}

// TestExamples: the tasks after are the tasks before with what docs/install.md
// adds, and the labels hold what Service Connect was told.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(top, examples, "*.json"))
	if err != nil || len(files) != 8 {
		t.Errorf("there are %d examples: %v", len(files), err)
	}
	for _, name := range []string{"orders", "web"} {
		before, after := example(t, name+"-task-before.json"), example(t, name+"-task-after.json")
		old, now := example(t, name+"-service-before.json"), example(t, name+"-service-after.json")
		was, is := before["containerDefinitions"].([]any)[0].(object), after["containerDefinitions"].([]any)[0].(object)
		labels := is["dockerLabels"].(object)

		var block any
		if err := json.Unmarshal([]byte(labels["connectd.serviceConnect"].(string)), &block); err != nil {
			t.Error(err)
		}
		if !reflect.DeepEqual(block, old["serviceConnectConfiguration"]) {
			t.Errorf("%s: the label holds %v, the service has %v", name, block, old["serviceConnectConfiguration"])
		}
		_, serves := block.(object)["services"]
		if label, ok := labels["connectd.ports"].(string); ok != serves {
			t.Errorf("%s: connectd.ports %v, serves %v", name, ok, serves)
		} else if ok {
			var ports any
			if err := json.Unmarshal([]byte(label), &ports); err != nil || !reflect.DeepEqual(ports, is["portMappings"]) {
				t.Errorf("%s: connectd.ports is %v (%v), the mappings are %v", name, ports, err, is["portMappings"])
			}
		}
		for label := range labels {
			if !slices.Contains([]string{"connectd.serviceConnect", "connectd.ports", "connectd.service", "connectd.off"}, label) {
				t.Errorf("%s: there is no label %s", name, label)
			}
		}

		if enabled := now["serviceConnectConfiguration"].(object)["enabled"]; enabled != false {
			t.Errorf("%s: Service Connect is %v afterwards", name, enabled)
		}
		constraint := []any{object{"type": "memberOf", "expression": "attribute:connectd.ready exists"}}
		if !reflect.DeepEqual(now["placementConstraints"], constraint) {
			t.Errorf("%s: placed by %v", name, now["placementConstraints"])
		}

		// Nothing else is another.
		delete(old, "serviceConnectConfiguration")
		delete(now, "serviceConnectConfiguration")
		delete(now, "placementConstraints")
		for _, key := range []string{"dockerLabels", "healthCheck", "dependsOn"} {
			delete(was, key)
			delete(is, key)
		}
		after["containerDefinitions"] = after["containerDefinitions"].([]any)[:1]
		if !reflect.DeepEqual(before, after) || !reflect.DeepEqual(old, now) {
			t.Errorf("%s: more has changed than the docs say", name)
		}
	}
}

// TestExampleOrder: a container that waits for readiness serves nothing, or it
// would wait for itself; the drain container is one that the app does not
// depend on, for dependants stop first.
func TestExampleOrder(t *testing.T) {
	for _, name := range []string{"orders", "web"} {
		task := example(t, name+"-task-after.json")["containerDefinitions"].([]any)
		app, helper := task[0].(object), task[1].(object)
		_, serves := app["dockerLabels"].(object)["connectd.ports"]
		waits := fmt.Sprint(app["dependsOn"])
		drains := fmt.Sprint(helper["dependsOn"])
		if serves && (app["dependsOn"] != nil || drains != "[map[condition:START containerName:"+name+"]]") {
			t.Errorf("%s: the app depends on %s, its helper on %s", name, waits, drains)
		}
		if !serves && (waits != "[map[condition:HEALTHY containerName:"+helper["name"].(string)+"]]" || helper["healthCheck"] == nil) {
			t.Errorf("%s: the app depends on %s", name, waits)
		}
		if serves && helper["stopTimeout"].(float64) < 10 {
			t.Errorf("%s: the drain container is killed after %v s", name, helper["stopTimeout"])
		}
	}
}

// commands are the health checks of docs/install.md, by the program they use.
func commands(t *testing.T) map[string]string {
	t.Helper()
	_, text, _ := strings.Cut(read(t, installDocs), "\n## Readiness\n")
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^# (curl|GNU wget|busybox wget)\n(.+)\n").FindAllStringSubmatch(text, -1) {
		found[m[1]] = m[2]
	}
	if len(found) != 3 {
		t.Fatalf("the docs have commands for %v", found)
	}
	return found
}

// tools is a folder in which wget and timeout are those of a program.
func tools(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	if program == "busybox wget" {
		need(t, "busybox")
		path, err := exec.LookPath("busybox")
		if err != nil {
			t.Fatal(err)
		}
		for _, applet := range []string{"wget", "timeout", "sh", "sleep"} {
			if err := os.Symlink(path, filepath.Join(dir, applet)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	need(t, strings.TrimPrefix(program, "GNU "))
	return dir
}

// TestReadyCommands: the commands fail while connectd says that a task is not
// ready, and at nothing else: not without connectd, where nobody listens or
// the application itself answers for all addresses, nor when it hangs.
func TestReadyCommands(t *testing.T) {
	says := func(code int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ready" || r.Host == "" {
				t.Errorf("asked for %s", r.URL)
			}
			w.WriteHeader(code)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL + "/"
	}
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangs.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	proxy := "http_proxy=" + says(500, "a proxy was asked")
	for program, command := range commands(t) {
		if !strings.Contains(command, readyAt+"ready") {
			t.Errorf("%s asks elsewhere: %s", program, command)
		}
		sh := "PATH=" + tools(t, program) + ":" + os.Getenv("PATH")
		for _, test := range []struct {
			name, url string
			code      int
		}{
			{"ready", says(200, "ready\n"), 0},
			{"not ready", says(503, "not ready: port 8080 is not registered yet\n"), 1},
			{"no connectd", "http://" + closed.Addr().String() + "/", 0},
			{"another server", says(404, "no such page"), 0},
			{"a server that hangs", "http://" + hangs.Addr().String() + "/", 0},
		} {
			out, code := shell(t, "sh", strings.ReplaceAll(command, readyAt, test.url), sh, proxy, "no_proxy=")
			if code != test.code || out != "" && program != "busybox wget" {
				t.Errorf("%s, %s: exit code %d: %s", program, test.name, code, out)
			}
		}
	}
}

// TestExampleCommands: the examples have the docs' command for busybox.
func TestExampleCommands(t *testing.T) {
	want := commands(t)["busybox wget"]
	for name, container := range map[string]int{"orders": 0, "web": 1} {
		c := example(t, name+"-task-after.json")["containerDefinitions"].([]any)[container].(object)
		command := c["healthCheck"].(object)["command"].([]any)
		if command[0] != "CMD-SHELL" || !strings.HasSuffix(command[1].(string), want) {
			t.Errorf("%s: the check is %v", name, command)
		}
	}
}

// TestDrainCommand: the drain container ends by itself 5 s after the stop
// signal, no sooner: here after a fifth of a second.
func TestDrainCommand(t *testing.T) {
	drain := example(t, "orders-task-after.json")["containerDefinitions"].([]any)[1].(object)["command"].([]any)
	script := drain[2].(string)
	if !strings.Contains(script, "sleep 5;") || !strings.Contains(read(t, installDocs), script) {
		t.Errorf("the docs have another command than %s", script)
	}
	for _, sh := range [][]string{{"sh"}, {"busybox", "sh"}} {
		need(t, sh[0])
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		quick := strings.NewReplacer("sleep 5", "sleep 0.2; echo slept", "TERM;", "TERM; echo up;").Replace(script)
		args := append(slices.Clone(sh[1:]), "-c", quick)
		cmd := exec.Command(sh[0], args...)
		cmd.Stdout = w
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		defer syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the sleep that outlives its shell
		b := make([]byte, 64)
		n, _ := r.Read(b)
		cmd.Process.Signal(syscall.SIGTERM)
		m, _ := r.Read(b[n:])
		if err := cmd.Wait(); err != nil || string(b[:n+m]) != "up\nslept\n" {
			t.Errorf("%v: %v, %q", sh, err, b[:n+m])
		}
		r.Close()
	}
}

func TestExampleConfig(t *testing.T) {
	path, err := filepath.Abs(filepath.Join(top, "docs/examples/ecs.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	loads(t, path)
}

// TestPolicyRecipe: the docs' command makes a policy of the file in which no
// placeholder is left.
func TestPolicyRecipe(t *testing.T) {
	recipe := regexp.MustCompile(`(?s)\nsed (.*?)scripts/iam-policy.json`).FindString(read(t, installDocs))
	if recipe == "" {
		t.Fatal("the docs have no recipe")
	}
	out, code := shell(t, "sh", "cd "+top+" && "+recipe)
	var v object
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || strings.Contains(out, "${") {
		t.Errorf("exit code %d, %v:\n%s", code, err, out)
	}
}

// TestLinks: files that the docs name are there.
func TestLinks(t *testing.T) {
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(read(t, installDocs), -1) {
		if _, err := os.Stat(filepath.Join(top, "docs", m[1])); err != nil {
			t.Error(err)
		}
	}
}
