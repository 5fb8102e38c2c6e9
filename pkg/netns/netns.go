// Package netns makes sockets inside another network namespace, and nothing
// else. It is a leaf that any package may use.
package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mark is the SO_MARK of connectd's own sockets, which the connect hooks
// never translate ("cnd" and a version byte). It is no credential: a task may
// set it too, and then only loses translation.
const Mark = 0x636e6401

// Handle is an open network namespace. A nil *Handle is the namespace the
// process runs in. It keeps the namespace alive, so close it when its task
// ends; who still uses it then gets errors.
type Handle struct {
	file  *os.File
	inode uint64
	self  bool
}

// Open opens the namespace at path, such as /run/netns/web or
// /proc/PID/ns/net.
func Open(path string) (*Handle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat netns %s: %s", path, err)
	}
	if _, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil {
		f.Close()
		return nil, fmt.Errorf("open netns %s: not a namespace file", path)
	}
	var own unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat own netns: %s", err)
	}
	return &Handle{file: f, inode: st.Ino, self: st.Ino == own.Ino}, nil
}

// Inode identifies the namespace on this machine; 0 for the nil Handle.
func (h *Handle) Inode() uint64 {
	if h == nil {
		return 0
	}
	return h.inode
}

// Self reports whether this is the namespace the process runs in.
func (h *Handle) Self() bool { return h == nil || h.self }

// Close releases the namespace.
func (h *Handle) Close() error {
	if h == nil {
		return nil
	}
	return h.file.Close()
}

// Clone returns a handle of the same namespace that is closed on its own.
func (h *Handle) Clone() (*Handle, error) {
	if h == nil {
		return nil, nil
	}
	raw, err := h.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("clone netns: %w", err)
	}
	var fd int
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("clone netns: %w", err)
	}
	return &Handle{file: os.NewFile(uintptr(fd), h.file.Name()), inode: h.inode, self: h.self}, nil
}

// Do runs fn inside the namespace. Sockets that fn makes stay there. fn must
// not start goroutines that make sockets: they would run outside.
func (h *Handle) Do(fn func() error) error {
	if h.Self() {
		return fn()
	}
	return OnThread(func() error {
		if err := h.enter(); err != nil {
			return err
		}
		return fn()
	})
}

// OnThread runs fn on an OS thread that fn may change for good: the runtime
// ends the thread with it instead of reusing it elsewhere. It is never the
// main thread, whose namespaces are what /proc/self shows to everybody.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- OnThread(fn) // on another one, for this one is held here
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
	}()
	return <-done
}

// MarkControl is a net.Dialer or net.ListenConfig Control function that marks
// the socket as connectd's own.
func MarkControl(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark)
	}); cerr != nil {
		return cerr
	}
	return err
}

// DialMarked dials address, an IP and port, from inside the namespace with a
// socket that carries Mark and is never translated by connectd. Multipath TCP
// is off.
func (h *Handle) DialMarked(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.Do(func() error {
		d := net.Dialer{Control: MarkControl}
		d.SetMultipathTCP(false)
		var err error
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Visit is Do for callers that enter often and briefly: it moves the calling
// thread into the namespace and back to home, the namespace the process runs
// in, which takes a few microseconds instead of a new thread. fn must not
// block, and the caller must not be locked to its thread.
func (h *Handle) Visit(home *Handle, fn func() error) error {
	if h.Self() {
		return fn()
	}
	runtime.LockOSThread()
	// The main thread's namespaces are what /proc/self shows to everybody.
	if unix.Gettid() == unix.Getpid() {
		runtime.UnlockOSThread()
		return h.Do(fn)
	}
	defer runtime.UnlockOSThread()
	if err := h.enter(); err != nil {
		return err
	}
	err := fn()
	if back := home.enter(); back != nil {
		// A thread that is lost in a task's namespace must not run anything else.
		panic(fmt.Sprintf("return to own netns: %s", back))
	}
	return err
}

func (h *Handle) enter() error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("enter netns: %w", err)
	}
	// Control holds the file against a Close meanwhile, after which its number
	// could be another file's.
	if cerr := raw.Control(func(fd uintptr) { err = unix.Setns(int(fd), unix.CLONE_NEWNET) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("enter netns: %w", err)
	}
	return nil
}
