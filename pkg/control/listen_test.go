package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		t.Run(fmt.Sprintf("umask %03o", umask), func(t *testing.T) {
			socket := socketPath(t)
			old := unix.Umask(umask)
			defer unix.Umask(old)
			mustListen(t, socket, Backend{})
			for path, want := range map[string]fs.FileMode{socket: 0o600, filepath.Dir(socket): 0o755} {
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if got := st.Mode().Perm(); got != want {
					t.Errorf("%s has mode %o, want %o", path, got, want)
				}
			}
		})
	}
}

func TestExistingFolderIsLeftAlone(t *testing.T) {
	socket := socketPath(t)
	if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	mustListen(t, socket, Backend{})
	st, err := os.Stat(filepath.Dir(socket))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %o, want 700 as before", st.Mode().Perm())
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	socket := socketPath(t)
	leaveStale(t, socket)
	serve(t, mustListen(t, socket, newNode().backend()))
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	socket := socketPath(t)
	serve(t, mustListen(t, socket, newNode().backend()))
	_, err := Listen(params(socket, Backend{}))
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v, want ErrInUse with the first one's pid", err)
	}
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Errorf("the first server after that: %s", err)
	}
}

func TestOtherFilesAreKept(t *testing.T) {
	for name, create := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) },
		"folder":  func(path string) error { return os.Mkdir(path, 0o755) },
		"symlink": func(path string) error { return os.Symlink("nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			if err := errors.Join(os.Mkdir(filepath.Dir(socket), 0o755), create(socket)); err != nil {
				t.Fatal(err)
			}
			if _, err := Listen(params(socket, Backend{})); err == nil || !strings.Contains(err.Error(), "not a socket") {
				t.Errorf("got %v, want that it is not a socket", err)
			}
			if _, err := os.Lstat(socket); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnotherStarting(t *testing.T) {
	socket := socketPath(t)
	leaveStale(t, socket)
	lock, err := lockDir(filepath.Dir(socket))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(params(socket, Backend{})); err == nil || !strings.Contains(err.Error(), "another connectd is starting") {
		t.Errorf("got %v, want that another is starting", err)
	}
	lock.Close()
	mustListen(t, socket, Backend{})
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	socket := socketPath(t)
	s := mustListen(t, socket, Backend{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v, want no file", err)
	}

	s = mustListen(t, socket, Backend{})
	aside := socket + ".aside" // keeps the inode, so that the new file cannot get its number
	if err := os.Rename(socket, aside); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the other's socket after Close: %s", err)
	}
}

func TestListenErrors(t *testing.T) {
	for name, socket := range map[string]string{
		"too long":         filepath.Join(filepath.Dir(socketPath(t)), strings.Repeat("x", 108)),
		"folder is a file": "/proc/self/status/run/s",
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Listen(params(socket, Backend{})); err == nil {
				s.Close()
				t.Error("no error")
			} else if !strings.Contains(err.Error(), socket) {
				t.Errorf("got %s, want an error that names the path", err)
			}
		})
	}
}
