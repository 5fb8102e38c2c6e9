package task

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

// newStatic makes a Static over the real kernel; resolv.conf files are lines
// of addresses.
func newStatic(t *testing.T) *Static {
	t.Helper()
	testutil.RequireRoot(t)
	root, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	s := NewStatic(Params{CgroupRoot: root, Cookie: cookie, ResolvConf: readLines})
	t.Cleanup(s.Close)
	return s
}

// cookie is SO_NETNS_COOKIE, or before Linux 5.14 the inode, which tells
// namespaces apart as well as long as they live.
func cookie(ns *netns.Handle) (cookie uint64, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err == unix.ENOPROTOOPT {
			cookie, err = ns.Inode(), nil
		}
		return err
	})
	return cookie, err
}

func readLines(path string) (resolvers []netip.Addr, search []string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	for word := range strings.FieldsSeq(string(text)) {
		if a, err := netip.ParseAddr(word); err == nil {
			resolvers = append(resolvers, a)
		}
	}
	return resolvers, nil, nil
}

// resolvConf makes a file that readLines reads.
func resolvConf(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func names(s *Static) string {
	var out []string
	for _, t := range s.Tasks() {
		out = append(out, t.Name)
	}
	return strings.Join(out, " ")
}

func find(t *testing.T, s *Static, name string) lb.Task {
	t.Helper()
	tasks := s.Tasks()
	i := slices.IndexFunc(tasks, func(t lb.Task) bool { return t.Name == name })
	if i < 0 {
		t.Fatalf("no task %s: %v", name, s.Problems()[name])
	}
	return tasks[i]
}

// refresh looks again and compares what is there with want, names in order.
func refresh(t *testing.T, s *Static, changed bool, want string) {
	t.Helper()
	if got := s.Refresh(); got != changed {
		t.Errorf("refresh says changed: %v", got)
	}
	if got := names(s); got != want {
		t.Errorf("tasks are %q, want %q; problems %v", got, want, s.Problems())
	}
}

// alive reports whether somebody holds the namespace; see testutil.NetnsAlive,
// which does not see open files.
func alive(inode uint64) error {
	if testutil.NetnsAlive(inode) {
		return fmt.Errorf("netns %d is held by a process or a path", inode)
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(fd, &st) == nil && st.Ino == inode {
			return fmt.Errorf("netns %d is held by file %s", inode, filepath.Base(fd))
		}
	}
	return nil
}
