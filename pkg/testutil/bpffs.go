package testutil

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"connectd/pkg/testutil/owned"
)

const bpffsDir = "/sys/fs/bpf"

// BPFFS names a folder for a test's pins, not made yet, and removes it with
// all its pins at the test's end: a link's last pin takes its program out of
// the kernel. What killed runs pinned goes too.
func BPFFS(tb testing.TB) string {
	tb.Helper()
	RequireRoot(tb)
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffsDir, &fs); err != nil {
		tb.Fatalf("stat %s: %s", bpffsDir, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffsDir, "bpf", 0, "mode=0700"); err != nil {
			tb.Fatalf("mount bpffs: %s", err)
		}
	}
	for _, name := range namesIn(bpffsDir) {
		if owned.Abandoned(name) {
			os.RemoveAll(filepath.Join(bpffsDir, name))
		}
	}
	prefix, err := owned.Prefix()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp(bpffsDir, prefix)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("remove pins: %s", err)
		}
	})
	return dir
}
