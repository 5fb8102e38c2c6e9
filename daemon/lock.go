package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"connectd/pkg/datapath"
)

// lockState makes this process the owner of the state directory. A lock is the
// open file's: it goes with the process, however that ends.
func lockState(c *Config) (*os.File, error) {
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.StateDir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, lockFile(f)
}

// lockPins does the same for the pins, which two daemons with state of their
// own would otherwise take from one another.
func lockPins(c *Config) (*os.File, error) {
	if err := datapath.EnsureBPFFS(c.BPFFS); err != nil {
		return nil, err
	}
	f, err := os.Open(c.BPFFS)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return f, lockFile(f)
}

// lockFile closes f when it cannot lock it.
func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("lock %s: held by %s, another connectd is running", f.Name(), holder(f))
	} else {
		err = fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	f.Close()
	return err
}

// holder finds who locks a file in /proc/locks (proc(5)): the fifth field is
// the process, the sixth ends in the inode. A process of another pid namespace
// is 0 or missing.
func holder(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return "an unknown process"
	}
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], inode) && fields[4] != "0" {
			return "pid " + fields[4]
		}
	}
	return "an unknown process"
}
