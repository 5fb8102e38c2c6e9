package dns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
)

// The lines around connectd's block of a hosts file.
const (
	hostsBegin = "# connectd begin: kept by connectd, names resolve from here while it is away"
	hostsEnd   = "# connectd end"
)

// maxHostsFile bounds what is read, in bytes: no hosts file is that large.
const maxHostsFile = 4 << 20

// HostEntry is one line of connectd's block of a hosts file.
type HostEntry struct {
	Address netip.Addr
	Name    string
}

// WriteHosts makes entries, in their order, the content of connectd's block
// in the hosts file at path, and removes the block when there are none. It
// touches nothing outside of the block, writes nothing when nothing changed,
// and creates the file (mode 0644) only to put a block in it.
//
// The file is changed in place, for a container sees this inode and no other
// (Docker mounts it). It is one write of the whole new text, filled up with
// empty lines to the old length, then a truncation, so a reader sees no file
// without its other lines; but it may see some pages old and some new, and
// what another process writes at the same moment may be lost.
func WriteHosts(path string, entries []HostEntry) error {
	flags := os.O_RDWR
	if len(entries) > 0 {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrNotExist) && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := readHosts(f)
	if err == nil {
		err = overwrite(f, old, replaceBlock(old, formatBlock(entries)))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func readHosts(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read hosts file %s: not a regular file", f.Name())
	}
	if info.Size() > maxHostsFile {
		return nil, fmt.Errorf("read hosts file %s: %d bytes, more than %d", f.Name(), info.Size(), maxHostsFile)
	}
	return io.ReadAll(f)
}

func overwrite(f *os.File, old, text []byte) error {
	if bytes.Equal(old, text) {
		return nil
	}
	size := len(text)
	if fill := len(old) - size; fill > 0 {
		text = append(text, bytes.Repeat([]byte("\n"), fill)...)
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	if size == len(text) {
		return nil
	}
	return f.Truncate(int64(size))
}

func formatBlock(entries []HostEntry) []byte {
	if len(entries) == 0 {
		return nil
	}
	b := append([]byte(hostsBegin), '\n')
	for _, e := range entries {
		b = e.Address.AppendTo(b)
		b = append(b, '\t')
		b = append(b, e.Name...)
		b = append(b, '\n')
	}
	return append(append(b, hostsEnd...), '\n')
}

// replaceBlock puts block where the first block of ours stands in text, or at
// its end, and takes every other block of ours out.
func replaceBlock(text, block []byte) []byte {
	out := make([]byte, 0, len(text)+len(block)+1)
	placed := false
	for len(text) > 0 {
		line, rest := cutLine(text)
		if !isBegin(line) {
			out = append(out, line...)
			text = rest
			continue
		}
		text = skipBlock(rest)
		if !placed {
			out = append(out, block...)
			placed = true
		}
	}
	if placed || len(block) == 0 {
		return out
	}
	if n := len(out); n > 0 && out[n-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, block...)
}

// skipBlock returns what follows a block whose first line has been taken. A
// block that was cut short ends before the first line that is none of ours.
func skipBlock(text []byte) []byte {
	for len(text) > 0 {
		line, rest := cutLine(text)
		if string(bytes.TrimSpace(line)) == hostsEnd {
			return rest
		}
		if _, ok := parseEntry(line); !ok {
			return text
		}
		text = rest
	}
	return text
}

// blockNames returns the names in connectd's blocks of a hosts file.
func blockNames(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readHosts(f)
	if err != nil {
		return nil, err
	}
	var names []string
	inside := false
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		e, ok := parseEntry(line)
		if inside = isBegin(line) || inside && ok; inside && ok {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// cutLine takes the first line off, with its line end.
func cutLine(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i+1], text[i+1:]
	}
	return text, nil
}

func isBegin(line []byte) bool { return bytes.HasPrefix(line, []byte("# connectd begin")) }

// parseEntry reads a line as formatBlock writes it.
func parseEntry(line []byte) (HostEntry, bool) {
	address, name, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
	if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t#") {
		return HostEntry{}, false
	}
	a, err := netip.ParseAddr(string(address))
	return HostEntry{a, string(name)}, err == nil
}
