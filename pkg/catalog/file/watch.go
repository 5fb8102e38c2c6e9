package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchMask has IN_CLOSE_WRITE, the reason for speaking inotify here rather
// than through fsnotify, which has no such event: it tells when a writer is
// done. Half a catalog may well be valid YAML, with half of the services.
const watchMask = unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CREATE | unix.IN_DELETE |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// maxWriting is how long a file is left alone after a write that no close
// followed: truncate(2) and linkat(2) of an unnamed file are followed by
// none.
const maxWriting = 2 * time.Second

// watcher tells of changes to the names that globs depend on. But for the
// goroutine that waits, it belongs to one goroutine.
type watcher struct {
	fd      int // of inotify, whose method Fd would make it blocking
	inotify *os.File
	ready   chan struct{} // there are events; closed when there will be none
	depends dependencies
	dirs    map[int32]string     // by watch descriptor
	writing map[string]time.Time // path: its last write, while its writer is not known to be done
	dirty   bool                 // something was noticed that takes a look
}

type event struct {
	wd   int32
	mask uint32
	name string
}

func newWatcher(ctx context.Context) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start inotify: %s", err)
	}
	w := &watcher{
		fd:      fd,
		inotify: os.NewFile(uintptr(fd), "inotify"),
		ready:   make(chan struct{}),
		dirs:    map[int32]string{},
		writing: map[string]time.Time{},
	}
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		w.inotify.Close()
		return nil, fmt.Errorf("start inotify: %s", err)
	}
	go w.wait(ctx, conn)
	return w, nil
}

// close ends the waiting goroutine. The context given to newWatcher must be
// done.
func (w *watcher) close() {
	w.inotify.Close()
	for range w.ready {
	}
}

// wait says on ready that there are events, but leaves reading them to drain:
// so that a reader of files can know of every event before its own read.
func (w *watcher) wait(ctx context.Context, conn syscall.RawConn) {
	defer close(w.ready)
	for {
		err := conn.Read(func(fd uintptr) bool {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD
			return err != nil || n > 0
		})
		if err != nil {
			return
		}
		select {
		case w.ready <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// drain notices every event there is, without waiting.
func (w *watcher) drain(now time.Time) error {
	if w == nil {
		return nil
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(w.fd, buf)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read inotify: %s", err)
		}
		w.notice(parseEvents(buf[:n]), now)
	}
}

// parseEvents decodes inotify(7)'s struct inotify_event: wd, mask, cookie,
// len, and a name padded with zeros.
func parseEvents(buf []byte) []event {
	var events []event
	for len(buf) >= unix.SizeofInotifyEvent {
		e := event{wd: int32(binary.NativeEndian.Uint32(buf)), mask: binary.NativeEndian.Uint32(buf[4:])}
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		if end > len(buf) {
			break
		}
		e.name = string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		events = append(events, e)
		buf = buf[end:]
	}
	return events
}

// sync watches the directories of depends and no others. added says that one
// of them was not watched before: what changed in it meanwhile was missed.
func (w *watcher) sync(depends dependencies) (added bool, err error) {
	w.depends = depends
	wanted := make(map[int32]string, len(depends))
	for dir := range depends {
		// A directory already watched keeps its descriptor. Another one in
		// its place gets a new descriptor.
		wd, err := unix.InotifyAddWatch(w.fd, dir, watchMask)
		if err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue // its parent is watched too
			}
			return added, fmt.Errorf("watch %s: %s", dir, err)
		}
		if w.dirs[int32(wd)] != dir {
			added = true
		}
		wanted[int32(wd)] = dir
	}
	for wd := range w.dirs {
		if wanted[wd] == "" {
			// An error says that the kernel has removed it by itself.
			unix.InotifyRmWatch(w.fd, uint32(wd))
		}
	}
	w.dirs = wanted
	return added, nil
}

// notice takes in what happened.
func (w *watcher) notice(events []event, now time.Time) {
	for _, e := range events {
		if e.mask&unix.IN_Q_OVERFLOW != 0 {
			clear(w.writing)
			w.dirty = true
			continue
		}
		dir, ok := w.dirs[e.wd]
		if !ok {
			continue
		}
		if e.mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
			// A moved directory's watch would move along. In the other
			// cases it is gone already, which the error says.
			unix.InotifyRmWatch(w.fd, uint32(e.wd))
			delete(w.dirs, e.wd)
			w.dirty = true
			continue
		}
		if !w.depends.covers(dir, e.name) {
			continue
		}
		path := filepath.Join(dir, e.name)
		switch {
		case e.mask&unix.IN_MODIFY != 0, e.mask&unix.IN_CREATE != 0 && opened(path):
			w.writing[path] = now
		case e.mask&unix.IN_ATTRIB != 0:
			w.dirty = true
		default:
			delete(w.writing, path)
			w.dirty = true
		}
	}
}

// opened reports whether what was created at path is an open file, which will
// be closed, rather than a directory, a symbolic or a hard link.
func opened(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1
}

// busy reports whether the file at a real path is being written, and until
// when that counts. The nil watcher knows of none.
func (w *watcher) busy(path string, now time.Time) (until time.Time, busy bool) {
	if w == nil {
		return time.Time{}, false
	}
	last, ok := w.writing[path]
	if !ok {
		return time.Time{}, false
	}
	until = last.Add(maxWriting)
	if !now.Before(until) {
		delete(w.writing, path)
		return time.Time{}, false
	}
	return until, true
}
