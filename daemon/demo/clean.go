package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"connectd/daemon/demo/report"
	"connectd/pkg/task"
)

// cleanUp ends everything and verifies that nothing is left, wherever the demo
// stopped.
func (d *demo) cleanUp(ctx context.Context) error {
	var errs []error
	if d.web != nil {
		d.web.close(ctx)
	}
	if d.daemon != nil {
		if err := d.daemon.close(ctx); err != nil {
			errs = append(errs, err)
			d.showLogs()
		}
		if text, err := d.daemon.connectd(ctx, "unload"); err != nil {
			errs = append(errs, err)
		} else {
			d.Say("connectd unload: %s", summary(text))
		}
	}
	if d.serve != nil {
		d.serve.close(ctx)
	}
	if d.world != nil {
		d.world.close()
	}
	errs = append(errs, remove(d.name))
	if left := leftovers(d.name); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	} else {
		d.Say("no process, namespace, cgroup, pin or file of %s is left", d.name)
	}
	return errors.Join(errs...)
}

// summary is the number of lines and the first of them.
func summary(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%s, and %d more", lines[0], len(lines)-1)
}

// sweep removes what demos left that no longer run, and names them.
func sweep() ([]string, error) {
	var names []string
	for _, dir := range homes() {
		for _, entry := range entries(dir) {
			if name, ok := abandoned(entry); ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, remove(name))
	}
	return names, errors.Join(errs...)
}

// homes are the folders in which a demo makes things.
func homes() []string {
	dirs := []string{runDir, netnsDir, bpffsDir}
	if root, err := task.CgroupRoot(); err == nil {
		dirs = append(dirs, root)
	}
	return dirs
}

// leftovers lists the paths that begin with a demo's name. Its programs are
// all in its cgroup, which cannot be removed before they have ended.
func leftovers(name string) []string {
	var left []string
	for _, dir := range homes() {
		for _, entry := range entries(dir) {
			if entry == name || strings.HasPrefix(entry, name+"-") {
				left = append(left, filepath.Join(dir, entry))
			}
		}
	}
	return left
}

// remove takes away everything of a demo, processes first. What is gone
// already is no error.
func remove(name string) error {
	var errs []error
	for _, path := range slices.Backward(leftovers(name)) { // cgroups first
		switch filepath.Dir(path) {
		case netnsDir:
			errs = append(errs, removeNetns(path))
		case runDir, bpffsDir:
			errs = append(errs, os.RemoveAll(path))
		default:
			errs = append(errs, removeCgroup(path))
		}
	}
	return errors.Join(errs...)
}

func removeNetns(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unbind netns %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeCgroup kills the members of a tree of cgroups and removes it, inner
// ones first.
func removeCgroup(path string) error {
	for _, entry := range entries(path) {
		inner := filepath.Join(path, entry)
		if st, err := os.Stat(inner); err == nil && st.IsDir() {
			if err := removeCgroup(inner); err != nil {
				return err
			}
		}
	}
	// A killed process leaves its cgroup only when it has ended.
	return report.Until(context.Background(), 5*time.Second, func() error {
		procs, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 { // 0: of another pid namespace
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// entries lists the names in a folder; a folder that cannot be read has none.
func entries(dir string) []string {
	list, _ := os.ReadDir(dir)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	return names
}
