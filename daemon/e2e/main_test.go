// Package e2e tests the whole of connectd from outside: the program that users
// run is a child process on a host of a testutil.World, its clients and servers
// are other hosts, and what is asserted is who answered. Each file is one
// scenario.
//
// The program is built once for a test run; CONNECTD_E2E_BINARY names a built
// one instead (a machine without Go, such as the kernel matrix).
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"connectd/pkg/testutil"
)

const (
	binaryEnv = "CONNECTD_E2E_BINARY"
	clientEnv = "CONNECTD_E2E_CLIENT" // this binary is a client program, see client_test.go
	dirEnv    = "CONNECTD_E2E_DIR"    // what was built for this run; set by it
)

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		os.Exit(clientMain(os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "cde2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(dirEnv, dir)
	if os.Getenv(binaryEnv) == "" {
		path := filepath.Join(dir, "connectd")
		args := []string{"build", "-o", path}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "connectd/cmd/connectd")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build connectd: %s\n%s", err, out)
			return 1
		}
		os.Setenv(binaryEnv, path)
	}
	// Children built with the race detector would each end a second late.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	return testutil.Main(m)
}

// need skips a test without a program that Debian has in a package, and fails
// it in CI, where scripts/provision.sh installed it.
func need(tb testing.TB, program string) {
	tb.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		tb.Fatalf("needs %s", program)
	}
	tb.Skipf("needs %s", program)
}
