package accesslog

import (
	"errors"
	"io"
	"os"
	"time"
)

// writer is the file of a sink, open or not.
type writer struct {
	*sink
	file    *os.File // nil: not open
	retry   time.Time
	failure string // what was logged last
}

// run writes until the sink is stopped, and then what is left.
func (s *sink) run() {
	w := &writer{sink: s}
	defer w.closeFile()
	timer := time.NewTimer(writeEvery)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			w.flush()
			return
		case <-s.wake:
		}
		if s.reopen.Swap(false) {
			w.closeFile()
		}
		// Lines that come close together are written at once.
		timer.Reset(writeEvery)
		select {
		case <-s.stop:
		case <-timer.C:
		}
		w.flush()
	}
}

// flush writes what waits. What the file does not take is dropped.
func (w *writer) flush() {
	w.mu.Lock()
	lines, count := w.queue, w.count
	w.queue, w.count = w.spare[:0], 0
	w.spare = nil
	w.mu.Unlock()
	if len(lines) > 0 {
		if err := w.write(lines); err != nil {
			w.logs.drops.Add(count)
			w.failed(err)
			w.closeFile()
		} else {
			w.logs.lines.Add(count)
			w.recovered()
		}
	}
	if cap(lines) > queueBytes+maxLine {
		lines = nil // one long line must not be kept for ever
	}
	w.mu.Lock()
	w.spare = lines[:0]
	w.mu.Unlock()
}

func (w *writer) write(lines []byte) error {
	out, err := w.open()
	if err != nil {
		return err
	}
	_, err = out.Write(lines)
	return err
}

func (w *writer) open() (io.Writer, error) {
	if w.path == "-" {
		return w.logs.stdout, nil
	}
	if w.file != nil {
		return w.file, nil
	}
	if time.Now().Before(w.retry) {
		return nil, errWaiting
	}
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		w.retry = time.Now().Add(retryEvery)
		return nil, err
	}
	w.file = f
	return f, nil
}

func (w *writer) closeFile() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// failed logs a new kind of trouble once.
func (w *writer) failed(err error) {
	if err == errWaiting || err.Error() == w.failure {
		return
	}
	w.failure = err.Error()
	w.logs.log.Error("write access log, dropping entries", "path", w.path, "error", err)
}

func (w *writer) recovered() {
	if w.failure != "" {
		w.failure = ""
		w.logs.log.Info("access log is written again", "path", w.path)
	}
}

var errWaiting = errors.New("waiting to open the file again")
