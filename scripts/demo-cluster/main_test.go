package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"connectd/daemon/demo"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build makes the connectd that the nodes run.
func build(t *testing.T) string {
	t.Helper()
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	path := filepath.Join(t.TempDir(), "connectd")
	if out, err := exec.Command("go", "build", "-o", path, "connectd/cmd/connectd").CombinedOutput(); err != nil {
		t.Fatalf("build connectd: %s: %s", err, out)
	}
	return path
}

func TestDemoCluster(t *testing.T) {
	binary := build(t)
	var out bytes.Buffer
	err := demo.RunCluster(t.Context(), &out, demo.Options{Binary: binary}, newCloud())
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}

// Interrupted, it cleans up as well: the last step says so.
func TestCtrlCLeavesNothing(t *testing.T) {
	binary := build(t)
	for _, at := range []string{"[ 1/", "[ 2/", "[ 5/", "at  50 %"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out bytes.Buffer
			err := demo.RunCluster(ctx, &testutil.OnText{Writer: &out, Text: at, Do: cancel}, demo.Options{Binary: binary}, newCloud())
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			if strings.Count(out.String(), "        FAIL  ") != 1 || !strings.Contains(out.String(), "is left\n") {
				t.Errorf("want one failed step and a clean-up that passed:\n%s", out.String())
			}
		})
	}
}
