package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"connectd/daemon/demo/report"
	"connectd/pkg/testutil/docker"
	"connectd/pkg/testutil/owned"
)

// cleanUp ends everything and verifies that nothing is left, wherever the demo
// stopped.
func (d *demo) cleanUp(ctx context.Context) error {
	var errs []error
	if d.daemon != nil {
		errs = append(errs, d.daemon.close(ctx, d.Report))
	}
	if d.node != nil {
		errs = append(errs, d.node.close())
		if d.node.name != "" {
			errs = append(errs, os.RemoveAll(filepath.Join(bpffsDir, d.node.name)))
		}
	}
	left, err := leftovers()
	if errs = append(errs, err); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.Say("no process, namespace, cgroup, pin or file of the demo is left")
	return nil
}

// close ends the daemon, whose exit status must be 0, and takes out of the
// kernel what it put there.
func (d *daemon) close(ctx context.Context, r *report.Report) error {
	defer d.log.Close()
	if d.cmd != nil {
		if err := d.stop(ctx, syscall.SIGTERM); err != nil {
			return fmt.Errorf("end connectd: %w", err)
		}
	}
	text, err := d.connectd(ctx, "unload")
	if err != nil {
		return err
	}
	r.Say("connectd unload:")
	r.Show(text, 4)
	return nil
}

// homes are the folders in which a demo makes things: Docker's, its own among
// them, cgroups, pins.
func homes() ([]string, error) {
	root, err := owned.CgroupRoot()
	return []string{os.TempDir(), root, bpffsDir}, err
}

// leftovers lists the paths that are this process's. Its programs and containers
// are all in its cgroup, which cannot be removed before they have ended.
func leftovers() (left []string, err error) {
	prefix, err := owned.Prefix()
	if err != nil {
		return nil, err
	}
	return named(func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// sweep removes what demos left that no longer run, and names them.
func sweep() (names []string, err error) {
	paths, err := named(abandoned)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, path := range paths {
		name := filepath.Base(path)
		if slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		errs = append(errs, owned.RemoveCgroup(name), os.RemoveAll(filepath.Join(bpffsDir, name)))
	}
	return names, errors.Join(append(errs, docker.Sweep(os.TempDir()))...)
}

// abandoned says whether a name is of an engine whose process no longer runs.
func abandoned(name string) bool { return owned.Abandoned(name) && strings.Contains(name, "-docker") }

func named(is func(string) bool) (paths []string, err error) {
	dirs, err := homes()
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if is(e.Name()) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}
