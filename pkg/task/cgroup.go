package task

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hybridMount is where runc (1.1 and later) places containers when only
// cgroup v1 holds the controllers, and nowhere else.
const hybridMount = "/sys/fs/cgroup/unified"

// RootID is the id of the root of the machine's cgroup2 tree: kernfs gives it
// inode 1. The root that a cgroup namespace shows has another.
const RootID = 1

var errNoCgroup2 = errors.New("no cgroup2 file system is mounted")

// CgroupRoot returns the mount point of the cgroup2 tree. Where there is none
// (Amazon Linux 2) it mounts one, which must happen before the first task
// starts.
func CgroupRoot() (string, error) {
	root, err := FindCgroupRoot()
	if !errors.Is(err, errNoCgroup2) {
		return root, err
	}
	if err := os.MkdirAll(hybridMount, 0o755); err != nil {
		return "", fmt.Errorf("mount cgroup2: %s", err)
	}
	if err := unix.Mount("cgroup2", hybridMount, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", fmt.Errorf("mount cgroup2 at %s: %s", hybridMount, err)
	}
	return hybridMount, nil
}

// FindCgroupRoot returns the mount point of the cgroup2 tree and mounts nothing.
// It reads mountinfo (proc(5)): field 4 is the root inside the file
// system, field 5 the mount point, and the type stands after " - ". In a
// cgroup namespace field 4 is relative to the namespace's own cgroup, so the
// inode decides: a container may have its own cgroup mounted as "/", and the
// machine's tree as "/../..".
func FindCgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	apparent := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if !ok || len(fields) < 5 || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fields[4], &st) == nil && st.Ino == RootID {
			return fields[4], nil
		}
		if fields[3] == "/" && apparent == "" {
			apparent = fields[4]
		}
	}
	if apparent == "" {
		return "", errNoCgroup2
	}
	return apparent, nil
}

// ClientCgroup returns the id of a cgroup that can be a client, or says why it
// cannot. Unlike CgroupRoot it mounts nothing.
func ClientCgroup(path string) (id uint64, err error) {
	root, err := FindCgroupRoot()
	if err != nil {
		return 0, err
	}
	id, _, err = locateCgroup(root, path)
	return id, err
}

// locateCgroup returns a cgroup's id, which is its inode number, and its depth
// below the root of the tree.
func locateCgroup(root, path string) (id uint64, level uint8, err error) {
	abs, err := filepath.EvalSymlinks(path)
	if err != nil {
		return 0, 0, fmt.Errorf("open cgroup: %w", err)
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return 0, 0, fmt.Errorf("open cgroup %s: not below %s", path, root)
	}
	if rel == "." {
		return 0, 0, fmt.Errorf("open cgroup %s: the root of the tree holds every process", path)
	}
	depth := 1 + strings.Count(rel, "/")
	if depth > maxDepth {
		return 0, 0, fmt.Errorf("open cgroup %s: %d levels deep, at most %d are looked at", path, depth, maxDepth)
	}
	var st unix.Stat_t
	if err := unix.Stat(abs, &st); err != nil {
		return 0, 0, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, 0, fmt.Errorf("open cgroup %s: not a directory", path)
	}
	return st.Ino, uint8(depth), nil
}

// maxDepth is where find_task in bpf/lib/socket.h stops looking.
const maxDepth = 15
