package dns

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func entry4(name, v4 string) HostEntry { return HostEntry{netip.MustParseAddr(v4), name} }

func TestWriteHosts(t *testing.T) {
	one := []HostEntry{entry4("orders", "127.254.0.1"), entry4("six", "fd00::6")}
	block := hostsBegin + "\n127.254.0.1\torders\nfd00::6\tsix\n" + hostsEnd + "\n"
	for name, test := range map[string]struct {
		old     string
		entries []HostEntry
		want    string
	}{
		"empty file":                {"", one, block},
		"after other lines":         {"127.0.0.1 localhost\n", one, "127.0.0.1 localhost\n" + block},
		"last line without its end": {"127.0.0.1 localhost", one, "127.0.0.1 localhost\n" + block},
		"old line":                  {"a\n" + hostsBegin + "\n1.2.3.4\told\n" + hostsEnd + "\nb", one, "a\n" + hostsBegin + "\n#.2.3.4\told\n" + hostsEnd + "\nb\n" + block},
		"one more":                  {"a\n" + hostsBegin + "\nfd00::6\tsix\n" + hostsEnd + "\n", one, "a\n" + hostsBegin + "\nfd00::6\tsix\n" + hostsEnd + "\n" + hostsBegin + "\n127.254.0.1\torders\n" + hostsEnd + "\n"},
		"one less":                  {"a\n" + block + "b\n", one[1:], "a\n" + hostsBegin + "\n#27.254.0.1\torders\nfd00::6\tsix\n" + hostsEnd + "\nb\n"},
		"one back":                  {hostsBegin + "\n#27.254.0.1\torders\nfd00::6\tsix\n" + hostsEnd + "\n", one, hostsBegin + "\n#27.254.0.1\torders\nfd00::6\tsix\n" + hostsEnd + "\n" + hostsBegin + "\n127.254.0.1\torders\n" + hostsEnd + "\n"},
		"other address":             {hostsBegin + "\n127.254.0.9\torders\nfd00::6\tsix\n" + hostsEnd + "\n", one, hostsBegin + "\n#27.254.0.9\torders\nfd00::6\tsix\n" + hostsEnd + "\n" + hostsBegin + "\n127.254.0.1\torders\n" + hostsEnd + "\n"},
		"removed":                   {"a\n" + block + "b\n", nil, "a\nb\n"},
		"nothing to remove":         {"a\n\n b ", nil, "a\n\n b "},
		"two blocks":                {"a\n" + block + "b\n" + block + "c\n", one, "a\n" + block + "b\n" + hostsBegin + "\n#27.254.0.1\torders\n#d00::6\tsix\n" + hostsEnd + "\nc\n"},
		"removed with dead lines":   {"a\n" + hostsBegin + "\n#27.254.0.1\torders\n#d00::6\tsix\n##\n" + hostsEnd + "\n#c\n" + block, nil, "a\n#c\n"},
		"cut short":                 {"a\n" + hostsBegin + "\n1.2.3.4\told\n10.0.0.1 mine\n", one, "a\n" + hostsBegin + "\n#.2.3.4\told\n10.0.0.1 mine\n" + block},
		"cut short at the end":      {"a\n" + hostsBegin + "\n1.2.3.4\told", one, "a\n" + hostsBegin + "\n#.2.3.4\told\n" + block},
		"older wording":             {"# connectd begin\n1.2.3.4\told\n" + hostsEnd + "\n", one, "# connectd begin\n#.2.3.4\told\n" + hostsEnd + "\n" + block},
	} {
		path := filepath.Join(t.TempDir(), "hosts")
		if err := os.WriteFile(path, []byte(test.old), 0o640); err != nil {
			t.Fatal(err)
		}
		inode := stat(t, path).Ino
		for range 2 {
			if err := WriteHosts(path, test.entries); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != test.want {
				t.Errorf("%s: %q, want %q (%v)", name, got, test.want, err)
			}
			if st := stat(t, path); st.Ino != inode || st.Mode&0o777 != 0o640 {
				t.Errorf("%s: another file: inode %d, mode %o", name, st.Ino, st.Mode)
			}
			// The second time nothing is written.
			if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if st := stat(t, path); st.Mtim.Sec != 1 {
					t.Errorf("%s: written though nothing changed", name)
				}
			}()
		}
	}
}

func stat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestWriteHostsCreates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := WriteHosts(path, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file was made for no entries: %v", err)
	}
	if err := WriteHosts(path, []HostEntry{entry4("a", "127.254.0.1")}); err != nil {
		t.Fatal(err)
	}
	if st := stat(t, path); st.Mode&0o777 != 0o644 {
		t.Errorf("mode %o", st.Mode)
	}
	if err := WriteHosts(t.TempDir(), nil); err == nil {
		t.Error("a directory is no error")
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteHosts(fifo, []HostEntry{entry4("a", "127.254.0.1")}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a fifo: %v", err)
	}
}

// afterWrite is text after WriteHosts.
func afterWrite(l layout, text []byte) []byte {
	out := bytes.Clone(text)
	if l.size >= 0 {
		out = out[:l.size]
	}
	out = append(out, l.append...)
	for _, d := range l.dead {
		out[d.at] = '#'
	}
	return out
}

// Whatever is outside of the blocks stays, byte for byte.
func FuzzHostsFile(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n"))
	f.Add([]byte("a\n" + hostsBegin + "\n1.2.3.4\told\nmine\n" + hostsEnd))
	f.Add([]byte("a\n" + hostsBegin + "\n127.254.0.1\torders\n#27.254.0.1\tx\n##\n" + hostsEnd + "\nb"))
	entries := []HostEntry{entry4("orders", "127.254.0.1")}
	f.Fuzz(func(t *testing.T, text []byte) {
		once := afterWrite(layOut(text, entries), text)
		if again := afterWrite(layOut(once, entries), once); !bytes.Equal(again, once) {
			t.Fatalf("not idempotent: %q became %q", once, again)
		}
		was, is := withoutBlocks(text), withoutBlocks(once)
		if string(bytes.TrimSuffix(is, []byte("\n"))) != string(bytes.TrimSuffix(was, []byte("\n"))) {
			t.Fatalf("%q became %q", was, is)
		}
		if names := parseHosts(once); !bytes.Contains(text, []byte("orders")) && names["orders"] != "127.254.0.1" {
			t.Fatalf("orders is %q in %q", names["orders"], once)
		}
	})
}

// parseHosts reads names as libc does: the first line of a name counts.
func parseHosts(text []byte) map[string]string {
	names := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 {
			if _, err := netip.ParseAddr(f[0]); err != nil {
				continue
			}
			for _, name := range f[1:] {
				if names[name] == "" {
					names[name] = f[0]
				}
			}
		}
	}
	return names
}

// A reader may see what a file was up to any byte and what it is from there,
// or a new page of it late: every name leads to an address that it has or had,
// and a name that stays is never missing.
func TestHostsFileIsNeverTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	own := "127.0.0.1 localhost\n10.1.2.3 ip-10-1-2-3\n"
	if err := os.WriteFile(path, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	addrs := map[string]string{}
	before := []byte(own)
	compacted := false
	for step := range 150 {
		had := maps.Clone(addrs)
		for range 1 + r.IntN(40) {
			name := "svc-" + strings.Repeat("x", r.IntN(30)) // most are prefixes of others
			if r.IntN(3) == 0 {
				delete(addrs, name)
			} else if addrs[name] == "" || r.IntN(50) == 0 {
				addrs[name] = fmt.Sprintf("127.254.%d.%d", r.IntN(256), r.IntN(256))
			}
			name = fmt.Sprintf("n%d", r.IntN(400))
			addrs[name] = fmt.Sprintf("127.254.%d.%d", len(name), r.IntN(2))
		}
		var entries []HostEntry
		for _, name := range slices.Sorted(maps.Keys(addrs)) {
			entries = append(entries, entry4(name, addrs[name]))
		}
		l := layOut(before, entries)
		commented := bytes.Clone(before)
		for _, d := range l.dead {
			commented[d.at] = '#'
		}
		if err := WriteHosts(path, entries); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := parseHosts(after); len(got) != len(addrs)+2 {
			maps.DeleteFunc(got, func(name, addr string) bool { return addrs[name] == addr })
			t.Fatalf("step %d: %d names too many, and %v", step, len(got)-2, got)
		}
		shrunk := l.size >= 0
		compacted = compacted || shrunk
		check := func(seen []byte, why string) {
			t.Helper()
			names := parseHosts(seen)
			for name, addr := range names {
				if name != "localhost" && name != "ip-10-1-2-3" && addr != had[name] && addr != addrs[name] {
					t.Fatalf("step %d, %s: %s is %s, want %q or %q", step, why, name, addr, had[name], addrs[name])
				}
			}
			if names["localhost"] == "" || names["ip-10-1-2-3"] == "" {
				t.Fatalf("step %d, %s: the container's own names are missing", step, why)
			}
			for name, addr := range had {
				if addrs[name] == addr && names[name] != addr && !shrunk {
					t.Fatalf("step %d, %s: %s is missing", step, why, name)
				}
			}
		}
		for range 40 {
			cut := r.IntN(min(len(before), len(after)) + 1)
			if shrunk { // read to the end before what is new comes
				check(slices.Concat(before[:cut], commented[cut:]), "comments from "+fmt.Sprint(cut))
				check(commented[:max(cut, l.size)], "cut off at "+fmt.Sprint(cut))
				continue
			}
			check(slices.Concat(before[:cut], after[cut:]), "new from "+fmt.Sprint(cut))
			check(slices.Concat(after[:cut], before[cut:min(len(before), max(cut, len(after)))]), "new up to "+fmt.Sprint(cut))
		}
		for n := (len(before)/page + 1) * page; n < len(after); n += page {
			check(after[:n], "new pages up to "+fmt.Sprint(n))
		}
		before = after
	}
	if !compacted {
		t.Error("the file was never made anew: this shows less than it should")
	}
}

// What another process appends at the same time stays.
func TestHostsFileOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	other, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const lines = 500
	done := make(chan error, 1)
	go func() {
		for i := range lines {
			if _, err := fmt.Fprintf(other, "10.0.0.1\tother-%d\n", i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range lines {
		if err := WriteHosts(path, []HostEntry{entry4("orders", "127.254.0.1"), entry4(fmt.Sprint("n", i/10), "127.254.0.2")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	names := parseHosts(text)
	for i := range lines {
		if names[fmt.Sprint("other-", i)] == "" {
			t.Fatalf("other-%d is lost", i)
		}
	}
	if names["orders"] != "127.254.0.1" || names["n49"] != "127.254.0.2" || names["n48"] != "" {
		t.Errorf("names %v", names)
	}
}
