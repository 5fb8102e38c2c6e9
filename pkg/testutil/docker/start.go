package docker

import (
	"context"
	"os"
	"os/exec"
)

// TB is what Start needs of a test; *testing.T has it. The package does not
// import testing, for a demo uses it too.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Start makes an engine that ends with the test. Without root or dockerd it
// skips the test, and fails it where CI=true.
func Start(tb TB, o Options) *Engine {
	tb.Helper()
	lacks := ""
	if os.Geteuid() != 0 {
		lacks = "root"
	} else if _, err := exec.LookPath("dockerd"); err != nil {
		lacks = "dockerd, of package docker.io"
	}
	if lacks != "" {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("needs %s", lacks)
		}
		tb.Skipf("needs %s", lacks)
	}
	e, err := New(context.Background(), o)
	if err != nil {
		tb.Fatalf("%s", err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Errorf("end dockerd: %s", err)
		}
	})
	return e
}
