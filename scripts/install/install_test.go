// Package install holds tests of what a node is set up with: the unit, user
// data, the image, the template, the policy, and the examples of
// docs/install.md. None of them touches the machine it runs on.
package install

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectd/daemon"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

// top is the repository's folder.
const top = "../.."

// read reads a file of the repository, or any other.
func read(t *testing.T, path string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(top, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask's share
		t.Fatal(err)
	}
}

// need skips a test without a program that `scripts/provision.sh test` installs.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s", program)
	}
	t.Skipf("needs %s", program)
}

// run returns what a command prints, and its exit code.
func run(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %s", cmd, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// code is a file's lines without comments and empty ones.
func code(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// loads wants a config file to be one that the daemon takes.
func loads(t *testing.T, path string) {
	t.Helper()
	_, err := daemon.LoadConfig(path)
	if err != nil {
		t.Errorf("%s:\n%s", path, err)
	}
}
