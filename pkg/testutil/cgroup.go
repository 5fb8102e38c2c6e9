package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/testutil/owned"
)

// Cgroup is a directory of the cgroup2 tree.
type Cgroup struct {
	tb   testing.TB
	path string
	dir  *os.File
}

// NewCgroup makes an empty cgroup right below the root of the cgroup2 tree; it
// ends, and its members with it, when the test does.
func NewCgroup(tb testing.TB) *Cgroup {
	tb.Helper()
	RequireRoot(tb)
	if err := Sweep(); err != nil {
		tb.Logf("sweep what killed runs left: %s", err)
	}
	root, err := CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	prefix, err := owned.Prefix()
	if err != nil {
		tb.Fatal(err)
	}
	path, err := os.MkdirTemp(root, prefix)
	if err != nil {
		tb.Fatal(err)
	}
	return openCgroup(tb, path)
}

// Child makes a cgroup inside this one.
func (g *Cgroup) Child(name string) *Cgroup {
	g.tb.Helper()
	path := filepath.Join(g.path, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		g.tb.Fatal(err)
	}
	return openCgroup(g.tb, path)
}

func openCgroup(tb testing.TB, path string) *Cgroup {
	tb.Helper()
	g := &Cgroup{tb: tb, path: path}
	tb.Cleanup(g.Close)
	var err error
	if g.dir, err = os.Open(path); err != nil {
		tb.Fatal(err)
	}
	return g
}

// Path is the cgroup's directory.
func (g *Cgroup) Path() string { return g.path }

// ID is the number by which the kernel's helpers know the cgroup.
func (g *Cgroup) ID() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(g.dir.Fd()), &st); err != nil {
		g.tb.Fatalf("stat cgroup %s: %s", g.path, err)
	}
	return st.Ino
}

// Add moves a process in. The test's own process may be moved too: at the end
// it goes back to the root of the tree.
func (g *Cgroup) Add(pid int) {
	g.tb.Helper()
	if err := moveTo(g.path, pid); err != nil {
		g.tb.Fatal(err)
	}
}

// Close kills the members and removes the cgroup and those inside of it.
// Calling it again does nothing.
func (g *Cgroup) Close() {
	g.dir.Close()
	if err := removeCgroup(g.path); err != nil {
		g.tb.Error(err)
	}
}

func moveTo(cgroup string, pid int) error {
	err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	if err != nil {
		return fmt.Errorf("move process %d: %w", pid, err)
	}
	return nil
}

// removeCgroup removes a tree of cgroups, inner ones first. What is gone
// already is no error.
func removeCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	// A killed process leaves its cgroup only when it has ended.
	ok := poll(10*time.Second, func() bool {
		if err = killCgroup(path); err != nil {
			return true
		}
		err = os.Remove(path)
		return err == nil || !errors.Is(err, unix.EBUSY)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !ok {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}
	return nil
}

// killCgroup kills the members of one cgroup; this process is moved to the
// root instead. cgroup.kill would be one write, but is Linux 5.14.
func killCgroup(path string) error {
	procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == 0 { // 0: of another pid namespace
			continue
		}
		if pid != os.Getpid() {
			unix.Kill(pid, unix.SIGKILL)
			continue
		}
		root, err := CgroupRoot()
		if err != nil {
			return err
		}
		if err := moveTo(root, pid); err != nil {
			return err
		}
	}
	return nil
}

// CgroupRoot returns where the root of the cgroup2 tree is mounted.
func CgroupRoot() (string, error) { return owned.CgroupRoot() }
