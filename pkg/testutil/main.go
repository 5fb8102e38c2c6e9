package testutil

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"connectd/pkg/testutil/owned"
)

// Main is the body of a TestMain: it runs the tests and fails when they leave
// a goroutine, an open file, a namespace, a cgroup or a pin behind.
//
//	func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }
func Main(m *testing.M, ignore ...goleak.Option) int {
	// The runtime opens its epoll instance at the first socket and keeps it.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	before := openFiles()
	code := m.Run()
	if code != 0 {
		return code // a failed test may leave anything
	}
	if err := goleak.Find(ignore...); err != nil {
		fmt.Fprintf(os.Stderr, "tests leave goroutines: %s\n", err)
		code = 1
	}
	var left []string
	// Files are closed by goroutines and threads that may just be ending.
	poll(2*time.Second, func() bool {
		runtime.GC() // io.Copy pools its splice pipes and closes them by finalizer
		left = left[:0]
		for fd, target := range openFiles() {
			if _, was := before[fd]; !was {
				left = append(left, fd+" -> "+target)
			}
		}
		return len(left) == 0
	})
	if len(left) > 0 {
		fmt.Fprintf(os.Stderr, "tests leave open files:\n\t%s\n", strings.Join(left, "\n\t"))
		code = 1
	}
	if made := leftovers(); len(made) > 0 {
		fmt.Fprintf(os.Stderr, "tests leave namespaces, cgroups or pins:\n\t%s\n", strings.Join(made, "\n\t"))
		code = 1
	}
	return code
}

// openFiles maps the numbers of this process's open files to what they are.
func openFiles() map[string]string {
	files := make(map[string]string)
	for _, fd := range namesIn("/proc/self/fd") {
		// The descriptor that reads the folder is closed by now, so its link
		// cannot be read.
		if target, err := os.Readlink("/proc/self/fd/" + fd); err == nil {
			files[fd] = target
		}
	}
	return files
}

// leftovers lists what this process made outside of itself and did not remove.
func leftovers() []string {
	prefix, err := owned.Prefix()
	if err != nil {
		return []string{err.Error()}
	}
	dirs := []string{netnsDir, netnsEtcDir, bpffsDir}
	if root, err := CgroupRoot(); err == nil {
		dirs = append(dirs, root)
	}
	var found []string
	for _, dir := range dirs {
		for _, name := range namesIn(dir) {
			if strings.HasPrefix(name, prefix) {
				found = append(found, filepath.Join(dir, name))
			}
		}
	}
	return found
}
