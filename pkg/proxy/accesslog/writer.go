package accesslog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	retryEvery = time.Second // opening a file that could not be opened
	// logEvery bounds what is said of a file: a disk that is nearly full takes
	// some lines and some not.
	logEvery = time.Minute
)

// writer is the file of a sink, open or not. It belongs to the goroutine run.
type writer struct {
	*sink
	file   io.WriteCloser // nil: not open
	torn   bool           // its last line is not whole
	retry  time.Time      // when to open it again
	said   bool           // that it fails
	saidAt time.Time
}

// flush writes what waits. What the file does not take is dropped.
func (w *writer) flush(last bool) {
	lines, count := w.take(last)
	// After take: no line from after the request is written to the old file.
	if w.reopen.Swap(false) {
		w.closeFile()
		w.torn = false
		w.retry = time.Time{}
	}
	if len(lines) > 0 {
		n, err := w.write(lines)
		written := count
		if err != nil {
			written = uint64(bytes.Count(lines[:n], []byte{'\n'}))
			w.torn = w.torn || n > 0 && lines[n-1] != '\n'
			w.closeFile()
		}
		w.logs.lines.Add(written)
		w.logs.drops.Add(count - written)
		w.report(err)
	}
	w.release(lines)
}

// write returns how much of the lines is in the file.
func (w *writer) write(lines []byte) (n int, err error) {
	if w.file == nil {
		if time.Now().Before(w.retry) {
			return 0, errWaiting
		}
		if w.file, err = w.logs.open(w.path); err != nil {
			w.file = nil
			w.retry = time.Now().Add(retryEvery)
			return 0, err
		}
	}
	if w.torn {
		if _, err := w.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		w.torn = false
	}
	return w.file.Write(lines)
}

func (w *writer) closeFile() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// report keeps and logs whether the file can be written.
func (w *writer) report(err error) {
	switch {
	case err == errWaiting:
	case err != nil:
		w.failure.Store(&err)
		if !w.said && (w.saidAt.IsZero() || time.Since(w.saidAt) >= logEvery) {
			w.said, w.saidAt = true, time.Now()
			w.logs.log.Error("write access log, dropping entries", "path", w.path, "error", err)
		}
	default:
		w.failure.Store(nil)
		if w.said {
			w.said = false
			w.logs.log.Info("access log is written again", "path", w.path)
		}
	}
}

var errWaiting = errors.New("waiting to open the file again")

// openFile opens the file of a path; "-" is standard output.
func openFile(path string) (io.WriteCloser, error) {
	if path != "-" {
		return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	}
	// Go ends a process that writes to descriptor 1 when nobody reads there any
	// more. From another descriptor it is an error like any other.
	fd, err := unix.FcntlInt(uintptr(unix.Stdout), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), "standard output"), nil
}
