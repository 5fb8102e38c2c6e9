package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// EnsureBPFFS makes sure that path lies on a bpffs, mounting one at the usual
// place when nothing is there.
func EnsureBPFFS(path string) error {
	root := path
	for {
		if _, err := os.Stat(root); err == nil {
			break
		}
		root = filepath.Dir(root)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return fmt.Errorf("stat %s: %s", root, err)
	}
	if fs.Type == unix.BPF_FS_MAGIC {
		return os.MkdirAll(path, 0o700)
	}
	const usual = "/sys/fs/bpf"
	if root != usual || !strings.HasPrefix(path, usual+"/") {
		return fmt.Errorf("open %s: not on a bpffs (mount one: mount -t bpf bpf %s)", path, usual)
	}
	if err := unix.Mount("bpf", usual, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %s", usual, err)
	}
	return os.MkdirAll(path, 0o700)
}

// pinMaps marks every map of the spec to be pinned by name, and takes over the
// sizes of those that are pinned already: a size in the config takes effect
// for new maps only, for a map cannot grow under the programs that use it.
// A pin that differs in more than size is a layout change without a new name:
// a defect of this build, never to be papered over.
func pinMaps(spec *ebpf.CollectionSpec, dir string, log *slog.Logger) error {
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue // constants belong to one load
		}
		m.Pinning = ebpf.PinByName
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("adopt map %s: %s", name, err)
		}
		if pinned.MaxEntries() != m.MaxEntries {
			log.Warn("map keeps its size until connectd unload", "map", name,
				"entries", pinned.MaxEntries(), "wanted", m.MaxEntries)
			m.MaxEntries = pinned.MaxEntries()
		}
		err = m.Compatible(pinned)
		pinned.Close()
		if err != nil {
			return fmt.Errorf("adopt map %s: %s", name, err)
		}
	}
	return nil
}

// dropOldMaps unpins maps of earlier layouts; no program of ours uses them
// once Publish has replaced every link.
func (d *Datapath) dropOldMaps(spec *ebpf.CollectionSpec) error {
	entries, err := os.ReadDir(mapDir(d.params.BPFFS))
	if err != nil {
		return fmt.Errorf("list pinned maps: %s", err)
	}
	for _, e := range entries {
		if _, ok := spec.Maps[e.Name()]; ok || slices.Contains(httpMaps, e.Name()) || slices.Contains(servedMaps, e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(mapDir(d.params.BPFFS), e.Name())); err != nil {
			return fmt.Errorf("unpin map %s: %s", e.Name(), err)
		}
		d.log.Info("unpinned a map of an earlier layout", "map", e.Name())
	}
	return nil
}

// Unload removes every link and pin below bpffs and returns their names. Links
// go first, those that write state before those that read it.
func Unload(bpffs string) ([]string, error) {
	var removed []string
	var errs []error
	for _, h := range slices.Backward(slices.Concat(hooks, directHooks, retiredHooks, servedHooks)) {
		ok, err := removeLink(bpffs, h.name)
		if ok {
			removed = append(removed, "links/"+h.name)
		}
		errs = append(errs, err)
	}
	entries, err := os.ReadDir(mapDir(bpffs))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(mapDir(bpffs), e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove map %s: %s", e.Name(), err))
			continue
		}
		removed = append(removed, "maps/"+e.Name())
	}
	for _, dir := range []string{linkDir(bpffs), mapDir(bpffs), bpffs} {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %s", dir, err))
		}
	}
	return removed, errors.Join(errs...)
}
