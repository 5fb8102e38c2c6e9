package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"connectd/pkg/netns"
	"connectd/pkg/testutil/owned"

	"golang.org/x/sys/unix"
)

// Where ip-netns(8) keeps named namespaces and their files for /etc.
const (
	netnsDir    = "/run/netns"
	netnsEtcDir = "/etc/netns"
)

// newNetns makes a network namespace bound to a new file under /run/netns and
// returns its path. hint ends the name and makes it readable.
func newNetns(hint string) (string, error) {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return "", err
	}
	prefix, err := owned.Prefix()
	if err != nil {
		return "", err
	}
	path, err := reserve(prefix, hint)
	if err != nil {
		return "", err
	}
	err = netns.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make netns: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind netns to %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
		return "", err
	}
	return path, nil
}

// reserve creates the first free "<prefix><n>-<hint>" under /run/netns.
func reserve(prefix, hint string) (string, error) {
	for n := 0; n < 1<<16; n++ {
		path := filepath.Join(netnsDir, fmt.Sprintf("%s%d-%s", prefix, n, hint))
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return path, f.Close()
	}
	return "", fmt.Errorf("name netns %s%s: all names are taken", prefix, hint)
}

// removeNetns unbinds a namespace and removes its files. Removing what is
// already gone is no error.
func removeNetns(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unbind netns %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(filepath.Join(netnsEtcDir, filepath.Base(path)))
}

// killMembers kills every process whose network namespace is the one bound to
// path. It never kills anything when path is the caller's own namespace or no
// namespace at all.
func killMembers(path string) error {
	var ns, own unix.Stat_t
	if err := unix.Stat(path, &ns); err != nil {
		return nil
	}
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return err
	}
	if ns.Dev != own.Dev || ns.Ino == own.Ino {
		return nil
	}
	procs, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, p := range procs {
		var st unix.Stat_t
		if unix.Stat(p, &st) != nil || st.Ino != ns.Ino || st.Dev != ns.Dev {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

// Sweep removes the namespaces and cgroups, with the processes in them, of
// test processes that no longer run. NewWorld and NewCgroup call it; it leaves
// alone what a living process made.
func Sweep() error {
	var errs []error
	for _, name := range namesIn(netnsDir) {
		if !owned.Abandoned(name) {
			continue
		}
		path := filepath.Join(netnsDir, name)
		errs = append(errs, killMembers(path), removeNetns(path))
	}
	// A machine that went down keeps /etc/netns and loses /run.
	for _, name := range namesIn(netnsEtcDir) {
		if owned.Abandoned(name) {
			errs = append(errs, os.RemoveAll(filepath.Join(netnsEtcDir, name)))
		}
	}
	if root, err := CgroupRoot(); err == nil {
		for _, name := range namesIn(root) {
			if owned.Abandoned(name) {
				errs = append(errs, removeCgroup(filepath.Join(root, name)))
			}
		}
	}
	return errors.Join(errs...)
}

// namesIn lists a folder's entries; a folder that cannot be read has none.
func namesIn(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}
