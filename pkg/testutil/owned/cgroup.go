package owned

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endTime is how long killed processes may take to leave their cgroup: long,
// for a machine may be busy, and it is waited for in full only by a defect.
const endTime = 20 * time.Second

// RemoveCgroup kills the members of a tree of cgroups and removes it from every
// hierarchy, v1's too. name is the tree's path below the roots. What is gone
// already is no error.
func RemoveCgroup(name string) error {
	if name == "" || name == "/" {
		return errors.New("remove cgroup: the root")
	}
	v2, v1, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	if v2 != "" { // first: all members are there
		errs = append(errs, removeTree(filepath.Join(v2, name)))
	}
	for _, root := range v1 {
		errs = append(errs, removeTree(filepath.Join(root, name)))
	}
	return errors.Join(errs...)
}

// CgroupRoot returns where the root of the cgroup2 tree is mounted.
func CgroupRoot() (string, error) {
	v2, _, err := hierarchies()
	if err == nil && v2 == "" {
		err = errors.New("find cgroup2: not mounted")
	}
	return v2, err
}

// hierarchies returns where the roots of the cgroup hierarchies are mounted.
func hierarchies() (v2 string, v1 []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		// 41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 || fields[3] != "/" {
			continue
		}
		switch kind, _, _ := strings.Cut(after, " "); kind {
		case "cgroup2":
			if v2 == "" {
				v2 = fields[4]
			}
		case "cgroup":
			v1 = append(v1, fields[4])
		}
	}
	return v2, v1, nil
}

func removeTree(path string) error {
	deadline := time.Now().Add(endTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		dirs, err := tree(path)
		if err != nil {
			return fmt.Errorf("list cgroup %s: %w", path, err)
		}
		members := 0
		for _, dir := range dirs {
			members += kill(dir)
		}
		if members == 0 {
			err = removeAll(dirs)
		}
		if members == 0 && err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s: %d processes are left in it: %w", path, members, err)
		}
		time.Sleep(pause) // a killed process leaves its cgroup only when it has ended
	}
}

// tree lists a cgroup and those inside, outer ones first.
func tree(path string) (dirs []string, err error) {
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return err
	})
	return dirs, err
}

func removeAll(dirs []string) error {
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// kill kills the members of one cgroup and returns how many it found.
// cgroup.kill would be one write, but is Linux 5.14 and of v2.
func kill(dir string) (members int) {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0
	}
	for field := range strings.FieldsSeq(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == 0 || pid == os.Getpid() { // 0: of another pid namespace
			continue
		}
		unix.Kill(pid, unix.SIGKILL)
		members++
	}
	return members
}
