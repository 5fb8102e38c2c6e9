// Package wholefile writes files of which readers, and the next start after a
// crash, see the old content or the new one, never a part.
package wholefile

import (
	"errors"
	"os"
)

// Write replaces path, or makes it, readable by its owner alone. It writes to
// path with ".next" behind it first, which a crash may leave, and the next Write
// takes: so no two may write the same path at once.
func Write(path string, data []byte) error { return write(path, data, false) }

// WriteSynced is Write that returns when the data is on the disk: a machine that
// loses its power has it.
func WriteSynced(path string, data []byte) error { return write(path, data, true) }

func write(path string, data []byte, synced bool) error {
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && synced {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
