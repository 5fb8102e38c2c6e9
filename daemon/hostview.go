package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"connectd/pkg/task"
)

const (
	// firstPIDNamespace is the inode of the pid namespace that the machine
	// booted with (PROC_PID_INIT_INO), the same in all kernels since 3.8.
	firstPIDNamespace = "pid:[4026531836]"
	// enteredEnv is set for a process that has entered the host's cgroup
	// namespace, so that none starts itself over and over.
	enteredEnv = "CONNECTD_ENTERED_HOST_CGROUPS"
)

// hostFinding is one thing that this process sees of the machine, or fails to.
type hostFinding struct {
	name   string
	detail string // what is seen, when err is nil
	err    error
	fix    string
	fatal  bool // a daemon that starts all the same would harm or do nothing
}

// lookAtHost compares what this process sees with what the machine's first
// process does. A daemon in a container, or in a unit with mounts of its own,
// may lack a bind mount without noticing: it would pin into a bpffs that ends
// with it and hook a cgroup in which it is alone.
func lookAtHost(c *Config) []hostFinding {
	found := []hostFinding{lookAtPIDs(), lookAtBPFFS(c.BPFFS)}
	if c.Cgroup == cgroupAuto {
		found = append(found, lookAtCgroups())
	}
	return append(found, lookAtNetwork())
}

// mustSeeHost is what of it a start fails on, nil if nothing.
func mustSeeHost(c *Config) error {
	var errs []error
	for _, f := range lookAtHost(c) {
		if f.err != nil && f.fatal {
			errs = append(errs, fmt.Errorf("%s: %w (%s)", f.name, f.err, f.fix))
		}
	}
	return errors.Join(errs...)
}

func lookAtPIDs() hostFinding {
	f := hostFinding{name: "pid namespace", detail: "the host's", fix: "run in the host's pid namespace (ECS: pidMode host)"}
	switch ns, err := os.Readlink("/proc/self/ns/pid"); {
	case os.Getpid() == 1: // a scratch image has no init
		f.err, f.fatal = errors.New("this is process 1 of a container: it cannot see the processes of tasks"), true
	case err == nil && ns != firstPIDNamespace:
		// A machine inside a container has its tasks in the same one.
		f.err = errors.New("not the one that the machine booted with: process numbers that Docker gives may mean nothing here")
	}
	return f
}

// lookAtBPFFS finds a bpffs that pid 1 does not have, mounted or about to be.
func lookAtBPFFS(path string) hostFinding {
	f := hostFinding{name: "bpffs", fatal: true, fix: "mount one on the host, mount -t bpf bpf /sys/fs/bpf, and let the daemon have it (ECS: bind /sys/fs/bpf)"}
	own, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		f.err = err
		return f
	}
	host, err := readMounts("/proc/1/mountinfo")
	if err != nil || sameMounts() {
		host = own
	}
	at, ok := own.below(path)
	switch {
	case !ok && sameMounts():
		f.detail = "none yet, connectd run mounts it at /sys/fs/bpf" // or says where it cannot
	case !ok:
		f.err = fmt.Errorf("%s is on none, and one mounted from here the host would not see", path)
	case !host.has("bpf", at.device):
		f.err = fmt.Errorf("%s is a bpffs of this container's own: what is pinned there ends with it", at.point)
	default:
		f.detail = "the host's, at " + at.point
	}
	return f
}

func lookAtCgroups() hostFinding {
	f := hostFinding{name: "cgroup2 tree", fatal: true, fix: "let the daemon have the host's tree (ECS: bind /sys/fs/cgroup)"}
	root, err := task.FindCgroupRoot()
	if err != nil {
		if f.detail = "not mounted yet, connectd run mounts it at /sys/fs/cgroup/unified"; !sameMounts() {
			f.err = fmt.Errorf("%w, and one mounted from here the host's containers would not be in", err)
			f.fix = "mount it on the host before Docker starts, mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified, and bind /sys/fs/cgroup"
		}
		return f
	}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		f.err = fmt.Errorf("stat %s: %w", root, err)
	} else if st.Ino != task.RootID {
		f.err = fmt.Errorf("%s is cgroup %d, not the root of the machine's tree: it holds this container only", root, st.Ino)
	}
	f.detail = "its root is at " + root
	if own, host, err := namespacePair("cgroup"); f.err == nil && err == nil && own != host {
		f.detail += ", seen from a cgroup namespace of this process's own"
	}
	return f
}

// lookAtNetwork is no reason not to start: probes go out from where the daemon
// is, and a test has its reasons.
func lookAtNetwork() hostFinding {
	f := hostFinding{name: "network namespace", detail: "the host's", fix: "run in the host's network namespace (ECS: networkMode host)"}
	own, host, err := namespacePair("net")
	if err != nil {
		f.detail = "cannot be compared with the host's"
	} else if own != host {
		f.err = errors.New("not the host's: the ECS agent cannot be asked, and probes do not leave from the host")
	}
	return f
}

// namespacePair returns this process's and pid 1's namespace of a kind.
func namespacePair(kind string) (own, host string, err error) {
	if own, err = os.Readlink("/proc/self/ns/" + kind); err != nil {
		return "", "", err
	}
	host, err = os.Readlink("/proc/1/ns/" + kind)
	return own, host, err
}

// sameMounts reports whether what is mounted from here the host sees. Where
// pid 1 cannot be asked it is taken for granted.
func sameMounts() bool {
	own, host, err := namespacePair("mnt")
	return err != nil || own == host
}

// enterHostCgroups starts the program anew in the host's cgroup namespace.
// Docker gives every container one of its own where there is cgroup2 only, and
// a task definition of ECS has no word for it; in it, the paths in
// /proc/PID/cgroup are relative to this container. Threads cannot be moved one
// by one, so one moves and executes. Where it cannot be done, or need not, it
// returns nil: lookAtHost says what is missing.
func enterHostCgroups() error {
	own, host, err := namespacePair("cgroup")
	if err != nil || own == host || os.Getpid() == 1 || os.Getenv(enteredEnv) != "" {
		return nil
	}
	f, err := os.Open("/proc/1/ns/cgroup")
	if err != nil {
		return nil
	}
	defer f.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter the host's cgroup namespace: %w (it takes CAP_SYS_ADMIN)", err)
	}
	err = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), enteredEnv+"=1"))
	return fmt.Errorf("start anew in the host's cgroup namespace: %w", err)
}

// mount is a line of mountinfo (proc(5)).
type mount struct{ device, point, fsType string }

type mounts []mount

func readMounts(path string) (mounts, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out mounts
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if ok && len(fields) > 4 {
			fsType, _, _ := strings.Cut(right, " ")
			out = append(out, mount{fields[2], fields[4], fsType})
		}
	}
	return out, lines.Err()
}

// below returns the bpffs that path is on, the last mount of those that hold
// it: later ones cover earlier ones.
func (m mounts) below(path string) (mount, bool) {
	var at mount
	for _, mnt := range m {
		rel, err := filepath.Rel(mnt.point, path)
		if err == nil && rel != ".." && !strings.HasPrefix(rel, "../") && len(mnt.point) >= len(at.point) {
			at = mnt
		}
	}
	return at, at.fsType == "bpf"
}

func (m mounts) has(fsType, device string) bool {
	for _, mnt := range m {
		if mnt.fsType == fsType && mnt.device == device {
			return true
		}
	}
	return false
}
