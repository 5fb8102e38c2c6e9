package docker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCgroups: containers' cgroups are found wherever the drivers put them, and
// their process before Docker tells of it; their end too, with Docker away.
func TestCgroups(t *testing.T) {
	for _, place := range []string{
		"docker/%s", "ecs/task/%s", "system.slice/docker-%s.scope", "ecstasks.slice/ecstasks-1.slice/docker-%s.scope", "%s",
		"a/b/c/d/ecs/task/%s",
	} {
		t.Run(place, func(t *testing.T) {
			root := t.TempDir()
			f := newFake(t)
			f.add(1, fakeContainer{status: "created"})
			w := followWith(t, Params{Host: f.host(), CgroupRoot: root})
			w.shows(t, "1 created")
			path := filepath.Join(root, fmt.Sprintf(place, id(1)))
			start(t, path, os.Getpid())
			c := w.awaitOne(t, id(1), "with a process", func(c Container) bool { return c.PID != 0 })
			if c.State != Created || c.PID != os.Getpid() || c.Cgroup != path {
				t.Errorf("%+v", c)
			}
			f.set(1, func(c *fakeContainer) { c.status, c.pid, c.started = "running", os.Getpid(), now() })
			f.event(1, "start")
			w.shows(t, "1 running")
			if s := w.Status(); s.EarlyStarts != 1 || s.LateStarts != 0 {
				t.Errorf("%+v", s)
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			c = w.awaitOne(t, id(1), "exited", func(c Container) bool { return c.State == Exited })
			if c.PID != 0 || c.Cgroup != "" {
				t.Errorf("%+v", c)
			}
			f.event(1, "rename") // Docker is asked, and has not noticed yet
			f.event(2, "create")
			f.add(2, fakeContainer{status: "created"})
			f.event(2, "rename")
			w.shows(t, "1 exited", "2 created")
			f.stop()
			start(t, path, os.Getppid())
			w.awaitOne(t, id(1), "with a process again", func(c Container) bool { return c.PID != 0 && c.State == Created })
			f.set(1, func(c *fakeContainer) { c.pid, c.started = os.Getppid(), now() })
			f.start()
			w.shows(t, "1 running", "2 created")
			if s := w.Status(); s.EarlyStarts != 2 || s.LateStarts != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// start makes what looks like a container's cgroup with a process in it.
func start(t *testing.T, path string, pid int) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	// In one step, for who looks between would find no process for 1 ms more.
	if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(fmt.Sprintln(pid)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestNoCgroups: without them Docker's word is all, and status says so.
func TestNoCgroups(t *testing.T) {
	f := newFake(t)
	f.add(1, fakeContainer{status: "running", pid: 5, started: now()})
	w := followWith(t, Params{Host: f.host(), CgroupRoot: filepath.Join(t.TempDir(), "none")})
	w.shows(t, "1 running")
	w.await(t, func([]Container, bool) error {
		if err := w.Status().CgroupErr; !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("status says %v", err)
		}
		return nil
	})
}

// TestOverflow: the kernel drops events when nobody reads them.
func TestOverflow(t *testing.T) {
	root := t.TempDir()
	w, err := New(Params{Host: "unix:///none", CgroupRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	tree := &cgroupTree{w: w, fd: fd, dirs: map[int32]string{}, ends: map[int32]string{}, open: map[string]time.Time{}}
	old, path := filepath.Join(root, "docker", id(1)), filepath.Join(root, "ecs", "task", id(2))
	start(t, old, os.Getpid())
	if err := tree.add(root); err != nil {
		t.Fatal(err)
	}
	if w.cgroups[id(1)].path != old {
		t.Errorf("not found: %v", w.cgroups)
	}
	start(t, path, os.Getpid())
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
	overflow := make([]byte, unix.SizeofInotifyEvent)
	overflow[5] = unix.IN_Q_OVERFLOW >> 8 // little endian
	if err := tree.take(overflow); err != nil {
		t.Fatal(err)
	}
	if w.cgroups[id(2)].path != path || len(w.cgroups) != 1 {
		t.Errorf("after an overflow: %v", w.cgroups)
	}
}

func TestContainerID(t *testing.T) {
	for name, want := range map[string]string{
		id(1): id(1), "docker-" + id(1) + ".scope": id(1), "cri-x-" + id(1) + ".scope": id(1),
		id(1)[1:]: "", id(1) + "0": "", strings.Repeat("g", 64): "", strings.ToUpper(strings.Repeat("a", 64)): "",
		"docker-" + id(1): "", "docker.service": "", "": "", ".scope": "", "-.scope": "",
	} {
		if got := containerID(name); got != want {
			t.Errorf("containerID(%q) = %q", name, got)
		}
	}
}
