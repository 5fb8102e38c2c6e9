package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"connectd/pkg/testutil"
)

// binaryVariable names the connectd that a demo of a child process runs.
const binaryVariable = "CONNECTD_DEMO_TEST_BINARY"

// TestMain is a demo too, and its long-lived client: a demo starts its own
// program.
func TestMain(m *testing.M) {
	if binary := os.Getenv(binaryVariable); binary != "" {
		if err := Run(context.Background(), os.Stdout, Options{Binary: binary}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(clientVariable) != "" {
		serveClient(context.Background(), os.Stdin, os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

// build makes the connectd that a demo runs.
func build(t *testing.T) string {
	t.Helper()
	testutil.RequireRoot(t)
	path := filepath.Join(t.TempDir(), "connectd")
	if out, err := exec.Command("go", "build", "-o", path, "connectd/cmd/connectd").CombinedOutput(); err != nil {
		t.Fatalf("build connectd: %s: %s", err, out)
	}
	return path
}

// assertNothingLeft looks for what a demo of this process made, its threads
// in namespaces too.
func assertNothingLeft(t *testing.T) {
	t.Helper()
	name, err := ownName()
	if err != nil {
		t.Fatal(err)
	}
	if left := leftovers(name); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 5*time.Second, func() error { // the kernel ends a thread after its goroutine
		tasks, _ := filepath.Glob("/proc/self/task/*/ns/net")
		for _, task := range tasks {
			if ns, err := os.Readlink(task); err == nil && ns != own {
				return fmt.Errorf("%s is %s", task, ns)
			}
		}
		return nil
	})
}

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := Run(t.Context(), &out, Options{Binary: build(t)})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "PASS"); n != len(steps())+1 {
		t.Errorf("%d steps passed, want %d", n, len(steps())+1)
	}
	assertNothingLeft(t)
}

func TestCtrlCLeavesNothing(t *testing.T) {
	binary := build(t)
	for _, at := range []string{
		"[ 1/", "[ 2/", "connectd run: pid", "dig, UDP", "[ 6/", "connectd drain", "the daemon is away",
	} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out bytes.Buffer
			err := Run(ctx, &testutil.OnText{Writer: &out, Text: at, Do: cancel}, Options{Binary: binary})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			if strings.Count(out.String(), "        FAIL  ") != 1 {
				t.Errorf("want one failed step and a clean-up that passed:\n%s", out.String())
			}
			assertNothingLeft(t)
		})
	}
}

// A step that fails ends the demo, and what it made goes.
func TestFailedStepLeavesNothing(t *testing.T) {
	testutil.RequireRoot(t)
	for _, binary := range []string{"/bin/false", "/bin/true", "/nonexistent"} {
		t.Run(binary, func(t *testing.T) {
			var out bytes.Buffer
			if err := Run(t.Context(), &out, Options{Binary: binary}); err == nil {
				t.Error("a demo without connectd held")
			}
			if !strings.Contains(out.String(), "FAIL") {
				t.Errorf("no FAIL:\n%s", out.String())
			}
			assertNothingLeft(t)
		})
	}
}

// What a killed demo leaves, the next one sweeps.
func TestSweep(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), binaryVariable+"="+build(t))
	var out bytes.Buffer
	var name string
	cmd.Stdout = &testutil.OnText{Writer: &out, Text: "health check after", Do: func() {
		start, err := startTime(cmd.Process.Pid)
		if err != nil {
			t.Error(err)
		}
		name = fmt.Sprintf("cddemo%d-%s", cmd.Process.Pid, start)
		cmd.Process.Kill()
	}}
	if err := cmd.Run(); name == "" {
		t.Fatalf("demo: %v\n%s", err, out.String())
	}
	if left := leftovers(name); len(left) < 4 {
		t.Errorf("a killed demo left only %v, so this test shows nothing", left)
	}
	if _, err := sweep(); err != nil {
		t.Error(err)
	}
	if left := leftovers(name); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, ", "))
	}
}

func TestAbandoned(t *testing.T) {
	own, err := ownName()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		entry string
		name  string
		ok    bool
	}{
		{own, own, false},
		{own + "-web", own, false},
		{own + "1-web", own + "1", true}, // this pid, started at another time
		{"cddemo4194305-7-web", "cddemo4194305-7", true},
		{"cddemo4194305", "", false},
		{"cdt4194305-7-web", "", false},
		{"web", "", false},
	} {
		if name, ok := abandoned(c.entry); name != c.name || ok != c.ok {
			t.Errorf("abandoned(%q) = %q, %v, want %q, %v", c.entry, name, ok, c.name, c.ok)
		}
	}
}
