package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// compactSlack is how much a journal may grow beyond its snapshot before it is
// replaced by one: enough that a busy node compacts rarely, little enough that
// a restart reads it in no time.
const compactSlack = 4 << 20

// journalFile keeps the plan's memory. The kernel's page cache outlives a
// killed process, so nothing is synced: a machine that goes down takes the
// programs along that the memory is about.
type journalFile struct {
	path string
	file *os.File
	size int64 // of what is whole
	base int64 // size of the last snapshot
}

func readJournal(dir string) ([]byte, error) {
	b, err := os.ReadFile(journalPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func journalPath(dir string) string { return filepath.Join(dir, "plan.journal") }

// openJournal starts a journal with a snapshot of what was read.
func openJournal(dir string, snapshot []byte) (*journalFile, error) {
	j := &journalFile{path: journalPath(dir)}
	return j, j.replace(snapshot)
}

// replace writes a snapshot beside the journal and renames it over.
func (j *journalFile) replace(snapshot []byte) error {
	next := j.path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write plan journal: %w", err)
	}
	if _, err := f.Write(snapshot); err != nil {
		f.Close()
		return fmt.Errorf("write plan journal: %w", err)
	}
	if err := os.Rename(next, j.path); err != nil {
		f.Close()
		return fmt.Errorf("write plan journal: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size, j.base = f, int64(len(snapshot)), int64(len(snapshot))
	return nil
}

// Append adds lines. After an error nothing of them is in the file.
func (j *journalFile) Append(b []byte) error {
	n, err := j.file.WriteAt(b, j.size)
	if err != nil {
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(n)
	return nil
}

// Compact replaces the journal by a snapshot once it has grown enough.
func (j *journalFile) Compact(snapshot func() []byte) error {
	if j.size < 2*j.base+compactSlack {
		return nil
	}
	return j.replace(snapshot())
}

func (j *journalFile) Close() error { return j.file.Close() }
