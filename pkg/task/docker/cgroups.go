package docker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxDepth is deeper than /ecs/<task>/<container> and than
	// ecstasks.slice/ecstasks-<task>.slice/docker-<id>.scope below a cgroup that
	// Docker itself may be in.
	maxDepth = 8
	// maxDirs is of cgroups that hold others: each task has one, each service of
	// the node has one. The kernel pays some 500 bytes for a watch.
	maxDirs = 8192
	// A cgroup is there 10 ms or more before its container's program runs; its
	// first process is looked for every youngPause as long as that may matter.
	youngPause = time.Millisecond
	youngTime  = 500 * time.Millisecond
	oldPause   = 20 * time.Millisecond
	// patience is how long a cgroup may stay without a process: runc is held up by
	// a busy node only.
	patience = 30 * time.Second
)

// cgroupTree watches the cgroups below which containers' may appear. What runc
// does in a start, and when, is in TestStartTimes.
type cgroupTree struct {
	w    *Watcher
	fd   int // of inotify; file.Fd would make it block
	file *os.File
	dirs map[int32]string     // watched, by watch descriptor
	ends map[int32]string     // cgroup.events of containers, to their cgroups
	open map[string]time.Time // container cgroups without a process yet, since when
	full bool
}

// watchCgroups sees containers' cgroups come and go until ctx ends. Where it
// cannot, Docker's own events tell later.
func (w *Watcher) watchCgroups(ctx context.Context) {
	if w.CgroupRoot == "" {
		return
	}
	err := w.followCgroups(ctx)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	w.status.CgroupErr = err
	w.mu.Unlock()
	w.Log.Warn("starts of containers are not seen in cgroups", "root", w.CgroupRoot, "error", err)
	w.Changed()
}

func (w *Watcher) followCgroups(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("open inotify: %w", err)
	}
	t := &cgroupTree{
		w: w, fd: fd, file: os.NewFile(uintptr(fd), "inotify"),
		dirs: make(map[int32]string), ends: make(map[int32]string), open: make(map[string]time.Time),
	}
	defer t.file.Close()
	stop := context.AfterFunc(ctx, func() { t.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := t.add(w.CgroupRoot); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		t.look()
		t.file.SetReadDeadline(t.deadline())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := t.file.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("read inotify: %w", err)
		}
		if err := t.take(buf[:n]); err != nil {
			return err
		}
	}
}

// deadline is when to look for processes again; zero is with the next event.
func (t *cgroupTree) deadline() time.Time {
	if len(t.open) == 0 {
		return time.Time{}
	}
	now := time.Now()
	for _, since := range t.open {
		if now.Sub(since) < youngTime {
			return now.Add(youngPause)
		}
	}
	return now.Add(oldPause)
}

// take reads inotify(7) events.
func (t *cgroupTree) take(buf []byte) error {
	const size = unix.SizeofInotifyEvent
	for len(buf) >= size {
		wd := int32(binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Wd):]))
		mask := binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Mask):])
		length := binary.NativeEndian.Uint32(buf[unsafe.Offsetof(unix.InotifyEvent{}.Len):])
		name := strings.TrimRight(string(buf[size:size+length]), "\x00")
		buf = buf[size+length:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			if err := t.again(); err != nil {
				return err
			}
			continue
		}
		if path, ok := t.ends[wd]; ok && mask&unix.IN_MODIFY != 0 {
			t.checkEnd(path)
			continue
		}
		dir, ok := t.dirs[wd]
		switch path := filepath.Join(dir, name); {
		case mask&unix.IN_IGNORED != 0:
			delete(t.dirs, wd)
			delete(t.ends, wd)
		case !ok || mask&unix.IN_ISDIR == 0:
		case mask&unix.IN_CREATE != 0:
			if err := t.appeared(path); err != nil {
				return err
			}
		case mask&unix.IN_DELETE != 0:
			t.vanished(path)
		}
	}
	return nil
}

// again compares after the kernel dropped events.
func (t *cgroupTree) again() error {
	t.w.mu.Lock()
	var paths []string
	for _, c := range t.w.cgroups {
		paths = append(paths, c.path)
	}
	t.w.mu.Unlock()
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			t.vanished(path)
		}
	}
	return t.add(t.w.CgroupRoot)
}

// add watches a cgroup and takes what is in it already. One that is gone is no
// error.
func (t *cgroupTree) add(dir string) error {
	if strings.Count(strings.TrimPrefix(dir, t.w.CgroupRoot), "/") > maxDepth {
		return nil
	}
	if len(t.dirs) >= maxDirs {
		if !t.full {
			t.w.Log.Warn("too many cgroups: some starts of containers will be seen late", "watched", len(t.dirs))
		}
		t.full = true
		return nil
	}
	wd, err := unix.InotifyAddWatch(t.fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR|unix.IN_EXCL_UNLINK)
	if errors.Is(err, unix.ENOENT) && dir != t.w.CgroupRoot {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch cgroup %s: %w", dir, err)
	}
	t.dirs[int32(wd)] = dir
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			if err := t.appeared(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *cgroupTree) appeared(path string) error {
	id := containerID(filepath.Base(path))
	if id == "" {
		return t.add(path)
	}
	if t.w.foundCgroup(id, path) {
		t.open[path] = time.Now()
	}
	return nil
}

func (t *cgroupTree) vanished(path string) {
	if id := containerID(filepath.Base(path)); id != "" {
		delete(t.open, path)
		t.w.lostCgroup(id, path)
	}
}

// look looks for the first processes of new cgroups.
func (t *cgroupTree) look() {
	for path, since := range t.open {
		age := time.Since(since)
		pid := firstProcess(path, age > youngTime)
		if pid != 0 {
			t.w.foundProcess(containerID(filepath.Base(path)), path, pid)
			t.watchEnd(path)
		}
		if pid != 0 || age > patience {
			delete(t.open, path)
		}
	}
}

// watchEnd has the end of a container's last process noticed: while Docker is
// away nobody removes its cgroup.
func (t *cgroupTree) watchEnd(path string) {
	wd, err := unix.InotifyAddWatch(t.fd, filepath.Join(path, "cgroup.events"), unix.IN_MODIFY)
	if err != nil { // it is gone, which IN_DELETE tells; or all watches are used
		return
	}
	t.ends[int32(wd)] = path
	t.checkEnd(path)
}

func (t *cgroupTree) checkEnd(path string) {
	events, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	if err == nil && strings.Contains(string(events), "populated 0\n") {
		t.vanished(path)
	}
}

// foundCgroup notes a container's cgroup and reports whether it is new.
func (w *Watcher) foundCgroup(id, path string) bool {
	w.mu.Lock()
	if w.cgroups[id].path == path {
		w.mu.Unlock()
		return false
	}
	w.cgroups[id] = seen{path: path, at: time.Now()}
	w.mu.Unlock()
	w.change(id, func(e *entry) {
		if e.State != Running {
			e.State, e.PID, e.PortsKnown = Created, 0, false
		}
		e.Cgroup = path
	})
	return true
}

func (w *Watcher) foundProcess(id, path string, pid int) {
	w.mu.Lock()
	c := w.cgroups[id]
	if c.path != path {
		w.mu.Unlock()
		return
	}
	c.pid, c.found = pid, time.Now()
	w.cgroups[id] = c
	w.mu.Unlock()
	w.change(id, func(e *entry) {
		if e.State == Created {
			e.PID, e.Cgroup = pid, path
		}
	})
}

// lostCgroup: the cgroup was removed, or its last process has ended.
func (w *Watcher) lostCgroup(id, path string) {
	w.mu.Lock()
	if w.cgroups[id].path == path {
		delete(w.cgroups, id)
	}
	w.mu.Unlock()
	ended := false
	w.change(id, func(e *entry) {
		if ended = e.Cgroup == path; ended {
			e.ended = e.PID
			e.exited()
		}
	})
	if ended {
		w.inspect(id)
	}
}
