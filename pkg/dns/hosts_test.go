package dns

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

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
	want := []string{"127.0.0.1 localhost", "127.254.0.1	orders", "127.254.0.2	orders.prod", "127.254.0.3	both", "127.254.1.1	cache",
		"127.254.1.2	full.corp.example", "127.254.1.3	full", "fd00::3	both", "fd00::6	six"}
	// IPv6 may come in a block of its own: it is known when the task is attached.
	got := slices.DeleteFunc(strings.Split(flush(d), "\n"), func(l string) bool { return l == "" || l[0] == '#' })
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("hosts file %q, want %q", got, want)
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
	after := awaitHosts(t, r, file, "orders")
	for line := range strings.Lines(before) { // IPv6 may have been found meanwhile
		if !strings.Contains(after, line) {
			t.Errorf("put back is\n%swas\n%s", after, before)
		}
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
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"service-00003.prod": "127.254.0.3", "service-00005": "127.254.0.5", "service-00009": "127.254.0.9"}
	if got, _ := os.ReadFile(file); !maps.Equal(parseHosts(got), want) {
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

// listedHosts is upkeep over a plan with one task for each file, until stopped.
func listedHosts(t *testing.T, list string, files ...string) *hosts {
	t.Helper()
	d := testPlan()
	d.Tasks[0].HostsFiles = files
	if len(files) == 0 {
		d.Tasks = nil
	}
	st := (&state{table: newTable()}).next(d)
	h := startHosts(func() *state { return st }, list, quiet())
	h.wake()
	return h
}

// Blocks in files of earlier tasks are found after a crash: by the next run,
// when it knows its tasks, and by an unload.
func TestHostsFilesAreListed(t *testing.T) {
	dir := t.TempDir()
	list, a, b := filepath.Join(dir, "list.json"), filepath.Join(dir, "a"), filepath.Join(dir, "b")
	has := func(why, file string, want bool) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil || (parseHosts(text)["orders"] != "") != want {
			t.Errorf("%s: %s is %q (%v)", why, file, text, err)
		}
	}
	listedHosts(t, list, a, b).close()
	has("first run", a, true)
	has("first run", b, true)
	// Its end is not the tasks': the same as a crash, for nothing is done at it.
	listedHosts(t, list, b).close()
	has("a's task is not found yet", a, true)
	h := listedHosts(t, list, b)
	h.prune.Store(true)
	h.wake()
	h.close()
	has("a's task is gone", a, false)
	has("a's task is gone", b, true)
	if files, err := readHostsList(list); err != nil || !slices.Equal(files, []string{b}) {
		t.Errorf("listed %q (%v)", files, err)
	}
	if err := RemoveHosts(list); err != nil {
		t.Fatal(err)
	}
	has("unloaded", b, false)
	if _, err := os.Stat(list); !os.IsNotExist(err) {
		t.Errorf("the list is left: %v", err)
	}
	for why, path := range map[string]string{"no list": list, "none kept": ""} {
		if err := RemoveHosts(path); err != nil {
			t.Errorf("%s: %s", why, err)
		}
	}
	// A file that went with its container is no error, one that cannot be
	// written stays listed.
	gone := filepath.Join(dir, "gone", "hosts")
	if err := os.WriteFile(list, []byte(`["`+gone+`", "`+dir+`"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveHosts(list); err == nil || strings.Contains(err.Error(), gone) {
		t.Errorf("error %v, want one of %s alone", err, dir)
	}
	if files, err := readHostsList(list); err != nil || len(files) != 2 {
		t.Errorf("listed %q (%v)", files, err)
	}
}

// A hosts file that Docker made anew gets its names again.
func TestHostsFileMadeAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	synctest.Test(t, func(t *testing.T) {
		h := listedHosts(t, "", file)
		defer h.close()
		has := func(why string, want bool) {
			t.Helper()
			synctest.Wait()
			text, err := os.ReadFile(file)
			if err != nil || (parseHosts(text)["orders"] != "") != want {
				t.Errorf("%s: %q (%v)", why, text, err)
			}
		}
		has("at first", true)
		if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		has("made anew", false)
		time.Sleep(hostsCheck)
		has("looked at", true)
	})
}
