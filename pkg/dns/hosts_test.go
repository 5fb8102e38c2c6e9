package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
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
		"replaced in its place":     {"a\n" + hostsBegin + "\n1.2.3.4\told\n" + hostsEnd + "\nb", one, "a\n" + block + "b"},
		"removed":                   {"a\n" + block + "b\n", nil, "a\nb\n"},
		"nothing to remove":         {"a\n\n b ", nil, "a\n\n b "},
		"two blocks":                {"a\n" + block + "b\n" + block + "c\n", one, "a\n" + block + "b\nc\n"},
		"cut short":                 {"a\n" + hostsBegin + "\n1.2.3.4\told\n10.0.0.1 mine\n", one, "a\n" + block + "10.0.0.1 mine\n"},
		"cut short at the end":      {"a\n" + hostsBegin + "\n1.2.3.4\told", one, "a\n" + block},
		"older wording":             {"# connectd begin\n1.2.3.4\told\n" + hostsEnd + "\n", one, block},
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

// Whatever is outside of the block stays, byte for byte.
func FuzzReplaceBlock(f *testing.F) {
	f.Add([]byte("127.0.0.1 localhost\n"))
	f.Add([]byte("a\n" + hostsBegin + "\n1.2.3.4\told\nmine\n" + hostsEnd))
	block := formatBlock([]HostEntry{entry4("orders", "127.254.0.1")})
	f.Fuzz(func(t *testing.T, text []byte) {
		once := replaceBlock(text, block)
		if !bytes.Equal(replaceBlock(once, block), once) {
			t.Fatal("not idempotent")
		}
		if !bytes.Contains(text, []byte("# connectd")) {
			if got := replaceBlock(once, nil); string(bytes.TrimSuffix(got, []byte("\n"))) != string(bytes.TrimSuffix(text, []byte("\n"))) {
				t.Fatalf("%q became %q", text, got)
			}
		}
	})
}

// hostsWorld is a responder without seats; flush makes its files current.
func hostsWorld(t *testing.T, file string, d *plan.Desired) (r *Responder, flush func(*plan.Desired) string) {
	t.Helper()
	w := newWorld(t, func(_ *Params, base *plan.Desired) {
		*base = *d
		base.Tasks[0].HostsFiles = []string{file}
	})
	return w.Responder, func(next *plan.Desired) string {
		t.Helper()
		w.Publish(next)
		if err := w.Close(); err != nil { // writes what is due
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestHostsFileOfTask(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := testPlan()
	_, flush := hostsWorld(t, file, d)
	want := "127.0.0.1 localhost\n" + hostsBegin + `
127.254.0.3	both
fd00::3	both
127.254.1.1	cache
127.254.1.3	full
127.254.1.2	full.corp.example
127.254.0.1	orders
127.254.0.2	orders.prod
fd00::6	six
` + hostsEnd + "\n"
	if got := flush(d); got != want {
		t.Errorf("hosts file:\n%swant:\n%s", got, want)
	}
}

// The block goes with the task, and stays when only the daemon goes.
func TestHostsFileOfGoneTask(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	d := testPlan()
	r, _ := hostsWorld(t, file, d)
	awaitHosts(t, r, file, "orders")
	gone := testPlan()
	gone.Tasks = nil
	r.Publish(gone)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || len(text) != 0 {
		t.Errorf("hosts file %q, %v", text, err)
	}
}

// Withdrawn names go from the file while the task stays, and come back, those
// that were asked for too.
func TestHostsFileWithdrawn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	d := testPlan()
	r, _ := hostsWorld(t, file, d)
	before := awaitHosts(t, r, file, "orders")
	r.Withdraw(true)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil && len(text) == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the hosts file is still %q, %v", text, err)
		}
	}
	r.Publish(d)
	r.Withdraw(false)
	if after := awaitHosts(t, r, file, "orders"); after != before {
		t.Errorf("put back is\n%swas\n%s", after, before)
	}
}

// awaitHosts polls: a file has no event that tells of its content.
func awaitHosts(t *testing.T, r *Responder, file, name string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		text, _ := os.ReadFile(file)
		if bytes.Contains(text, []byte("\t"+name+"\n")) && bytes.Contains(text, []byte(hostsEnd)) {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in the hosts file:\n%s", name, text)
		}
		time.Sleep(time.Millisecond)
	}
}

// With more names than a hosts file should hold, those asked for are kept,
// over a restart too.
func TestHostsFileOfLargeScope(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	old := hostsBegin + "\n127.254.0.9\tservice-00009\n127.254.0.9\tforgotten\n" + hostsEnd + "\n"
	if err := os.WriteFile(file, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(_ *Params, d *plan.Desired) {
		*d = *catalog(maxHosts)
		d.Tasks[0].HostsFiles = []string{file}
	})
	for _, name := range []string{"service-00005", "SERVICE-00003.prod", "service-00005", "unknown"} {
		q := query(name, mdns.TypeA)
		if name == "unknown" {
			w.ask(t, pack(t, q))
			continue
		}
		describe(t, q, w.ask(t, pack(t, q)))
	}
	want := hostsBegin + "\n127.254.0.3\tservice-00003.prod\n127.254.0.5\tservice-00005\n127.254.0.9\tservice-00009\n" + hostsEnd + "\n"
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != want {
		t.Errorf("hosts file:\n%swant:\n%s", got, want)
	}
}

func TestAskedNamesAreBounded(t *testing.T) {
	r, err := New(Params{Log: quiet(), PortFile: filepath.Join(t.TempDir(), "ports")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a := r.hosts.attach(lb.TaskID(1), false)
	for i := range maxHosts + 10 {
		a.add(fmt.Sprint("n", i))
	}
	if n := len(*a.names.Load()); n != maxHosts {
		t.Errorf("%d names kept", n)
	}
}
