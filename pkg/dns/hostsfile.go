package dns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"
)

// The lines around a block of connectd's in a hosts file.
const (
	hostsBegin = "# connectd begin: kept by connectd, names resolve from here while it is away"
	hostsEnd   = "# connectd end"
)

// maxHostsFile bounds what is read, in bytes: no hosts file is that large.
const maxHostsFile = 4 << 20

// page is how much of a file a reader sees change at once, in bytes.
const page = 4096

// maxWaste is how many bytes of markers and dead lines are put up with before
// the blocks are made anew, if there are more of them than of living lines.
const maxWaste = 16 << 10

// readTime is longer than anybody reads a hosts file for. A reader that has
// begun with blocks that are made anew must not go on in the new ones.
const readTime = 100 * time.Millisecond

// HostEntry is one line of connectd's blocks of a hosts file.
type HostEntry struct {
	Address netip.Addr
	Name    string
}

// WriteHosts makes entries what connectd's blocks in the hosts file at path
// say, and removes the blocks when there are none. It touches nothing outside
// of them, writes nothing when nothing changed, and creates the file (mode
// 0644) only to put a block in it.
//
// The file is changed in place, for a container sees this inode and no other
// (Docker mounts it), and is read meanwhile. So what stands in it is never
// moved: a line that goes gets a # for its first byte, and what comes is
// appended, as another block, in which no line crosses a page. A reader that
// sees some of it old and some new sees no name with another's address, and
// none missing that stays; and nothing is lost that others append at the same
// moment. When too much of it is dead, the blocks are taken off, and put back
// a moment later; meanwhile names come over DNS. Only removing a block that
// others have written behind moves lines, theirs.
func WriteHosts(path string, entries []HostEntry) error {
	flags := os.O_RDWR
	if len(entries) > 0 {
		flags |= os.O_CREATE | os.O_APPEND
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrNotExist) && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := readHosts(f)
	switch {
	case err != nil:
	case len(entries) == 0:
		err = overwrite(f, old, withoutBlocks(old))
	default:
		err = layOut(old, entries).apply(f)
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

// overwrite writes from the first difference on: one write, filled up with
// empty lines to the old length, then a truncation.
func overwrite(f *os.File, old, text []byte) error {
	same := 0
	for same < min(len(old), len(text)) && old[same] == text[same] {
		same++
	}
	if rest := text[same:]; len(rest) > 0 {
		if fill := len(old) - len(text); fill > 0 {
			rest = append(bytes.Clone(rest), bytes.Repeat([]byte("\n"), fill)...)
		}
		if _, err := f.WriteAt(rest, int64(same)); err != nil {
			return err
		}
	}
	if len(text) >= len(old) {
		return nil
	}
	return f.Truncate(int64(len(text)))
}

// layout is how a hosts file gets from what it is to what it should be.
type layout struct {
	size   int         // to cut it down to first, once every line is dead; -1: not
	append []byte      // to put at its end
	dead   []placeLine // lines to end, after that: a name whose address changes is never missing
}

type placeLine struct {
	at   int
	line []byte // as it stands there
}

// layOut finds the least change after which the blocks in text say entries.
func layOut(text []byte, entries []HostEntry) layout {
	missing := make(map[string]bool, len(entries))
	for _, e := range entries {
		missing[string(e.line())] = true
	}
	l := layout{size: -1}
	first, blocks := -1, 0
	var living []placeLine
	kept := 0
	for at := 0; at < len(text); {
		line, _ := cutLine(text[at:])
		if !isBegin(line) {
			at += len(line)
			continue
		}
		end := at + blockLength(text[at:])
		if first < 0 {
			first = at
		}
		blocks += end - at
		for at += len(line); at < end; at += len(line) {
			line, _ = cutLine(text[at:])
			switch _, entry := parseEntry(line); {
			case !entry:
			case missing[string(line)]:
				missing[string(line)] = false
				living = append(living, placeLine{at, line})
				kept += len(line)
			default:
				l.dead = append(l.dead, placeLine{at, line})
			}
		}
	}
	contiguous := first >= 0 && first+blocks == len(text)
	if waste := blocks - kept; contiguous && waste > maxWaste && waste > kept {
		return layout{size: first, append: formatBlock(first, endsLine(text[:first]), entries), dead: append(l.dead, living...)}
	}
	var more []HostEntry
	for _, e := range entries {
		if missing[string(e.line())] {
			more = append(more, e)
			missing[string(e.line())] = false
		}
	}
	l.append = formatBlock(len(text), endsLine(text), more)
	return l
}

func endsLine(text []byte) bool { return len(text) == 0 || text[len(text)-1] == '\n' }

// apply changes a file that was opened for appending.
func (l layout) apply(f *os.File) error {
	if l.size >= 0 {
		if err := kill(f, l.dead); err != nil {
			return err
		}
		time.Sleep(readTime)
		if err := f.Truncate(int64(l.size)); err != nil {
			return err
		}
		time.Sleep(readTime)
	}
	if len(l.append) > 0 {
		if _, err := f.Write(l.append); err != nil {
			return err
		}
	}
	if l.size >= 0 {
		return nil
	}
	return kill(f, l.dead)
}

// kill makes comments of lines, if they stand where they stood. A single byte
// is old or new to every reader.
func kill(f *os.File, lines []placeLine) error {
	if len(lines) == 0 {
		return nil
	}
	// Writes through f go to its end, wherever they are meant to.
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open hosts file %s again: %w", f.Name(), err)
	}
	defer w.Close()
	for _, d := range lines {
		there := make([]byte, len(d.line))
		if _, err := w.ReadAt(there, int64(d.at)); err != nil || !bytes.Equal(there, d.line) {
			return fmt.Errorf("write hosts file %s: somebody else writes it", f.Name())
		}
		if _, err := w.WriteAt([]byte("#"), int64(d.at)); err != nil {
			return err
		}
	}
	return nil
}

// line is an entry as it stands in a block.
func (e HostEntry) line() []byte {
	b := e.Address.AppendTo(nil)
	b = append(b, '\t')
	b = append(b, e.Name...)
	return append(b, '\n')
}

// formatBlock makes a block that begins at an offset of a file, where a line
// begins or not.
func formatBlock(at int, onLine bool, entries []HostEntry) []byte {
	if len(entries) == 0 {
		return nil
	}
	var b []byte
	if !onLine {
		b = append(b, '\n')
	}
	b = append(append(b, hostsBegin...), '\n')
	for _, e := range entries {
		line := e.line()
		// A line that is cut off is a name with the address of a longer one.
		if room := page - (at+len(b))%page; room < len(line) {
			b = append(append(b, bytes.Repeat([]byte("#"), room-1)...), '\n')
		}
		b = append(b, line...)
	}
	return append(append(b, hostsEnd...), '\n')
}

// withoutBlocks returns text without blocks of ours.
func withoutBlocks(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		line, rest := cutLine(text)
		if isBegin(line) {
			text = text[blockLength(text):]
			continue
		}
		out = append(out, line...)
		text = rest
	}
	return out
}

// blockLength is how long the block is that text begins with. One that was cut
// short ends before the first line that is none of ours.
func blockLength(text []byte) int {
	line, rest := cutLine(text)
	n := len(line)
	for len(rest) > 0 {
		line, rest = cutLine(rest)
		if string(bytes.TrimSpace(line)) == hostsEnd {
			return n + len(line)
		}
		if _, entry := parseEntry(line); !entry && !isDead(line) {
			return n
		}
		n += len(line)
	}
	return n
}

// isDead says whether a line was an entry once, or only fills a page.
func isDead(line []byte) bool {
	if len(bytes.Trim(line, "#\n")) == 0 {
		return true
	}
	if line[0] != '#' {
		return false
	}
	rest := line[1:]
	for _, was := range []string{"1", "f"} { // VIPs may begin with anything that parses
		if _, ok := parseEntry(append([]byte(was), rest...)); ok {
			return true
		}
	}
	return false
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
	for len(text) > 0 {
		line, rest := cutLine(text)
		if !isBegin(line) {
			text = rest
			continue
		}
		end := blockLength(text)
		for block := text[len(line):end]; len(block) > 0; {
			line, block = cutLine(block)
			if e, ok := parseEntry(line); ok {
				names = append(names, e.Name)
			}
		}
		text = text[end:]
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
