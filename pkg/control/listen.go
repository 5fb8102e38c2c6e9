package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode: root only, since whoever may write can drain every endpoint.
const socketMode = 0o600

// answerTimeout bounds the wait for whoever holds the socket already. Linux
// answers a unix connect at once unless the other's backlog is full.
const answerTimeout = time.Second

// listenSocket makes the socket, and its folder if it is missing. A socket
// file that nobody answers on, left by a crash, is replaced; any other file is
// an error, and ErrInUse says that somebody answers.
func listenSocket(path string) (*net.UnixListener, error) {
	dir, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// On Linux the mode of the open socket, less the umask, becomes that of
	// the file, so there is no moment at which others could connect.
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var err error
		if ctl := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); ctl != nil {
			return ctl
		}
		return err
	}}
	ln, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	unixLn := ln.(*net.UnixListener)
	unixLn.SetUnlinkOnClose(false) // Server.Close looks first whether the file is still ours
	return unixLn, nil
}

// lockDir opens the folder, made with mode 0755 if it is missing, and takes a
// lock that ends when it is closed: of two daemons that both find a stale
// socket, the slower must not remove the faster's new one.
func lockDir(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	switch err := os.Mkdir(path, 0o755); {
	case err == nil:
		if err := os.Chmod(path, 0o755); err != nil { // whatever the umask
			return nil, err
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another connectd is starting")
		}
		return nil, fmt.Errorf("lock folder %s: %w", path, err)
	}
	return dir, nil
}

func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, answerTimeout)
	if err == nil {
		defer conn.Close()
		return fmt.Errorf("%w (pid %d)", ErrInUse, peerPID(conn.(*net.UnixConn)))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("ask whether %s is in use: %w", path, err)
	}
	return os.Remove(path)
}

// peerPID returns the process that called listen, 0 if it cannot be told.
func peerPID(conn *net.UnixConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
