package dns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"

	"connectd/pkg/wholefile"
)

// hostsList is which hosts files may have a block of ours, on disk, so that
// the block is found when task and daemon are gone.
type hostsList struct {
	path    string // "" keeps nothing
	listed  map[string]struct{}
	changed bool
}

// loadHostsList takes a list that cannot be read for an empty one, which is
// logged: blocks of earlier tasks stay then.
func loadHostsList(path string, log *slog.Logger) *hostsList {
	l := &hostsList{path: path, listed: make(map[string]struct{})}
	files, err := readHostsList(path)
	if err != nil {
		log.Warn("names of earlier tasks stay in their hosts files", "error", err)
	}
	for _, file := range files {
		l.listed[file] = struct{}{}
	}
	return l
}

func readHostsList(path string) (files []string, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &files); err != nil {
		return nil, fmt.Errorf("read list of hosts files %s: %w", path, err)
	}
	return files, nil
}

func (l *hostsList) files() []string { return slices.Sorted(maps.Keys(l.listed)) }

func (l *hostsList) add(file string) {
	if _, ok := l.listed[file]; !ok {
		l.listed[file], l.changed = struct{}{}, true
	}
}

func (l *hostsList) remove(file string) {
	delete(l.listed, file)
	l.changed = true
}

func (l *hostsList) save() error {
	if !l.changed || l.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(l.files(), "", "  ")
	if err == nil {
		err = wholefile.Write(l.path, text)
	}
	l.changed = err != nil
	return err
}

// RemoveHosts removes connectd's blocks from every hosts file that a Responder
// has noted in its list at path, and the list itself. Call it when no
// Responder runs.
func RemoveHosts(path string) error {
	files, err := readHostsList(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if err := WriteHosts(file, nil); err != nil {
			errs = append(errs, fmt.Errorf("remove names from hosts file: %w", err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
