package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// binaryVariable names the connectd that a demo in a child process shows.
const binaryVariable = "CONNECTD_DEMO_ECS_TEST_BINARY"

// TestMain is a demo too, which a test kills.
func TestMain(m *testing.M) {
	if binary := os.Getenv(binaryVariable); binary != "" {
		if err := run(context.Background(), os.Stdout, options{binary: binary}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "cddemoecs")
	if err != nil {
		panic(err)
	}
	program = sync.OnceValues(func() (string, error) {
		path := filepath.Join(dir, "connectd")
		out, err := exec.Command("go", "build", "-o", path, "connectd/cmd/connectd").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build connectd: %w: %s", err, out)
		}
		return path, err
	})
	code := testutil.Main(m)
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds the connectd that is shown.
var program func() (string, error)

// connectd skips the test where the demo cannot run, but not in CI.
func connectd(t *testing.T) string {
	t.Helper()
	testutil.RequireRoot(t)
	if err := checkMachine(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func assertNothingLeft(t *testing.T) {
	t.Helper()
	if left, err := leftovers(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out, options{binary: connectd(t)})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "        PASS  "); n != len(steps())+1 {
		t.Errorf("%d steps passed, want %d", n, len(steps())+1)
	}
	assertNothingLeft(t)
}

// TestCtrlCLeavesNothing: what was made goes, as it does after a failed step.
func TestCtrlCLeavesNothing(t *testing.T) {
	binary := connectd(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, &testutil.OnText{Writer: &out, Text: "connectd run: pid", Do: cancel}, options{binary: binary})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if strings.Count(out.String(), "        FAIL  ") != 1 {
		t.Errorf("want one failed step and a clean-up that passed:\n%s", out.String())
	}
	assertNothingLeft(t)
}

// TestSweep: what a killed demo leaves, the next one removes.
func TestSweep(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), binaryVariable+"="+connectd(t))
	var out bytes.Buffer
	cmd.Stdout = &testutil.OnText{Writer: &out, Text: "GET " + readyURL, Do: func() { cmd.Process.Kill() }}
	cmd.WaitDelay = 5 * time.Second
	cmd.Run()
	mark := fmt.Sprintf("cdt%d-", cmd.Process.Pid)
	of := func(name string) bool { return strings.HasPrefix(name, mark) }
	// Its folder, its containers' cgroup, its pins.
	if left, err := named(of); err != nil || len(left) < 3 {
		t.Errorf("a killed demo left only %v (%v), so this test shows nothing:\n%s", left, err, out.String())
	}
	swept, err := sweep()
	if err != nil {
		t.Error(err)
	}
	if len(swept) == 0 {
		t.Error("nothing is said to be swept")
	}
	if left, err := named(of); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
