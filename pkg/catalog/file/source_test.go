package file

import (
	"log/slog"
	"os"
	"strings"
	"testing"
)

func TestFollowsChanges(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/b.yaml", one("b", "10.0.0.1"))
	w := start(t, dir, "*.yaml")
	w.until("a=10.0.0.1 b=10.0.0.1")
	b := w.service("b")

	replace(t, w.path("a.yaml"), one("a", "10.0.0.2"))
	w.until("a=10.0.0.2 b=10.0.0.1")
	write(t, w.path("a.yaml"), one("a", "10.0.0.3"))
	w.until("a=10.0.0.3 b=10.0.0.1")
	write(t, w.path("c.yaml"), one("c", "10.0.0.1"))
	w.until("a=10.0.0.3 b=10.0.0.1 c=10.0.0.1")
	replace(t, w.path("a.yaml"), "namespace: prod\nservices: {}\n")
	w.until("a=10.0.0.3 b=10.0.0.1 c=10.0.0.1 !a.yaml")
	replace(t, w.path("a.yaml"), one("a", "10.0.0.3"))
	w.until("a=10.0.0.3 b=10.0.0.1 c=10.0.0.1")
	if err := os.Rename(w.path("c.yaml"), w.path("c.off")); err != nil {
		t.Fatal(err)
	}
	w.until("a=10.0.0.3 b=10.0.0.1")
	if err := os.Remove(w.path("a.yaml")); err != nil {
		t.Fatal(err)
	}
	w.until("b=10.0.0.1")
	if w.service("b") != b {
		t.Error("a service that did not change got a new pointer")
	}
}

// TestOpenFileIsNotRead writes half a file that is valid YAML, keeps it open
// while another change comes, and expects only the whole of it.
func TestOpenFileIsNotRead(t *testing.T) {
	dir := t.TempDir()
	whole := "namespace: prod\nservices:\n- {discoveryName: a, endpoints: [{address: 10.0.0.1, port: 80}]}\n- {discoveryName: b, endpoints: [{address: 10.0.0.1, port: 80}]}\n"
	half := strings.SplitAfter(whole, "}\n")[0]
	write(t, dir+"/x.yaml", whole)
	write(t, dir+"/y.yaml", one("y", "10.0.0.1"))
	w := start(t, dir, "*.yaml")
	// A change seen by an event shows that the watch stands.
	replace(t, w.path("y.yaml"), one("y", "10.0.0.2"))
	w.until("a=10.0.0.1 b=10.0.0.1 y=10.0.0.2")

	f, err := os.OpenFile(w.path("x.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(half); err != nil {
		t.Fatal(err)
	}
	replace(t, w.path("y.yaml"), one("y", "10.0.0.3"))
	w.until("a=10.0.0.1 b=10.0.0.1 y=10.0.0.3")
	if _, err := f.WriteString(strings.Replace(whole[len(half):], "10.0.0.1", "10.0.0.4", 1)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.until("a=10.0.0.1 b=10.0.0.4 y=10.0.0.3")
}

// TestReplacedInSteps removes a file and makes it again, as version control
// does: its services stay all the while.
func TestReplacedInSteps(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/b.yaml", one("b", "10.0.0.1"))
	w := start(t, dir, "*.yaml")
	replace(t, w.path("b.yaml"), one("b", "10.0.0.2"))
	w.until("a=10.0.0.1 b=10.0.0.2")
	a := w.service("a")
	if err := os.Remove(w.path("a.yaml")); err != nil {
		t.Fatal(err)
	}
	replace(t, w.path("b.yaml"), one("b", "10.0.0.3"))
	w.until("a=10.0.0.1 b=10.0.0.3")
	write(t, w.path("a.yaml"), one("a", "10.0.0.1"))
	replace(t, w.path("b.yaml"), one("b", "10.0.0.4"))
	w.until("a=10.0.0.1 b=10.0.0.4")
	if w.service("a") != a {
		t.Error("a file that was away for a moment lost its service")
	}
}

func TestConfigurationVolume(t *testing.T) {
	dir := t.TempDir()
	// The layout of a Kubernetes ConfigMap volume.
	write(t, dir+"/..v1/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/..v2/a.yaml", one("a", "10.0.0.2"))
	symlink(t, "..v1", dir+"/..data")
	symlink(t, "..data/a.yaml", dir+"/a.yaml")
	w := start(t, dir, "*.yaml")
	w.until("a=10.0.0.1")
	symlink(t, "..v2", dir+"/..data_tmp")
	if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil {
		t.Fatal(err)
	}
	w.until("a=10.0.0.2")
	write(t, dir+"/..v2/a.yaml", one("a", "10.0.0.3"))
	w.until("a=10.0.0.3")
}

func TestLinkElsewhere(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, other+"/v1/real.yaml", one("a", "10.0.0.1"))
	write(t, other+"/v2/real.yaml", one("a", "10.0.0.2"))
	symlink(t, "v1", other+"/current")
	symlink(t, other+"/current/real.yaml", dir+"/a.yaml")
	w := start(t, dir, "a.yaml")
	w.until("a=10.0.0.1")
	replace(t, other+"/v1/real.yaml", one("a", "10.0.0.3"))
	w.until("a=10.0.0.3")
	symlink(t, "v2", other+"/next")
	if err := os.Rename(other+"/next", other+"/current"); err != nil {
		t.Fatal(err)
	}
	w.until("a=10.0.0.2")
	write(t, other+"/v2/real.yaml", one("a", "10.0.0.4"))
	w.until("a=10.0.0.4")
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/d/one/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/d/.hidden/z.yaml", one("z", "10.0.0.1"))
	symlink(t, "nobody@host.1", dir+"/d/one/.#a.yaml") // an editor's lock
	if err := os.Mkdir(dir+"/d/one/dir.yaml", 0o755); err != nil {
		t.Fatal(err)
	}
	w := start(t, dir, "d/*/*.yaml")
	w.until("a=10.0.0.1")
	write(t, dir+"/d/two/b.yaml", one("b", "10.0.0.1"))
	w.until("a=10.0.0.1 b=10.0.0.1")
	write(t, dir+"/staged/a.yaml", one("a", "10.0.0.2"))
	if err := os.Rename(dir+"/d/one", dir+"/old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+"/staged", dir+"/d/one"); err != nil {
		t.Fatal(err)
	}
	w.until("a=10.0.0.2 b=10.0.0.1")
	write(t, dir+"/d/one/a.yaml", one("a", "10.0.0.3"))
	w.until("a=10.0.0.3 b=10.0.0.1")
	if err := os.RemoveAll(dir + "/d"); err != nil {
		t.Fatal(err)
	}
	w.until("")
	write(t, dir+"/d/three/c.yaml", one("c", "10.0.0.1"))
	w.until("c=10.0.0.1")
}

// TestUnreadableDirectory makes a directory impossible to list, which is an
// error, no empty directory: its files stay.
func TestUnreadableDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/real/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/b.yaml", one("b", "10.0.0.1"))
	symlink(t, "real", dir+"/d")
	w := start(t, dir, "d/*.yaml", "*.yaml")
	w.until("a=10.0.0.1 b=10.0.0.1")
	symlink(t, "d", dir+"/loop")
	if err := os.Rename(dir+"/loop", dir+"/d"); err != nil { // d is a link to itself
		t.Fatal(err)
	}
	w.until("a=10.0.0.1 b=10.0.0.1 !*.yaml")
	if err := os.Remove(dir + "/b.yaml"); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/c.yaml", one("c", "10.0.0.1"))
	w.until("a=10.0.0.1 b=10.0.0.1 c=10.0.0.1 !*.yaml")
	symlink(t, "real", dir+"/next")
	if err := os.Rename(dir+"/next", dir+"/d"); err != nil {
		t.Fatal(err)
	}
	w.until("a=10.0.0.1 c=10.0.0.1")
}

func TestServiceMovesBetweenFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", one("x", "10.0.0.1"))
	write(t, dir+"/b.yaml", one("y", "10.0.0.1"))
	w := start(t, dir, "*.yaml")
	w.until("x=10.0.0.1 y=10.0.0.1")
	x := w.service("x")
	// In the order that conflicts first.
	replace(t, w.path("b.yaml"), one("x", "10.0.0.1"))
	w.until("x=10.0.0.1 y=10.0.0.1 !b.yaml")
	if err := w.statuses()[1].Err; err == nil || !strings.HasSuffix(err.Error(), "/b.yaml:3: services[0].discoveryName: prod/x is taken by "+w.path("a.yaml")+":3") {
		t.Errorf("got %v", err)
	}
	replace(t, w.path("a.yaml"), one("z", "10.0.0.1"))
	w.until("x=10.0.0.1 z=10.0.0.1")
	if w.service("x") != x {
		t.Error("a service that moved unchanged got a new pointer")
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", one("a", "10.0.0.1"))
	write(t, dir+"/b/b.yaml", one("b", "10.0.0.1"))
	ca := strings.Replace(one("c", "10.0.0.1"), "endpoints", "healthCheck: {protocol: https, caFile: ca.pem}\n  endpoints", 1)
	w := start(t, dir, "*.yaml")
	<-w.Reload(globs("b/*.yaml"))
	w.service("b") // at once; that of a.yaml goes a moment later
	w.until("b=10.0.0.1")
	replace(t, dir+"/b/b.yaml", ca)
	w.until("b=10.0.0.1 !b.yaml") // there is no ca.pem
	write(t, dir+"/b/ca.pem", certificate)
	first, second := w.Reload(globs("b/*.yaml")), w.Reload(globs("b/*.yaml"))
	<-first
	<-second
	w.service("c")
}

func TestLoadTellsEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", one("a", "10.0.0.1")+one("", "")[:0]+"bogus: 1\n")
	write(t, dir+"/b.yaml", one("b", "10.0.0.1"))
	write(t, dir+"/c.yaml", one("b", "10.0.0.2"))
	write(t, dir+"/loop/x", "")
	symlink(t, "l.yaml", dir+"/loop/l.yaml")
	s := New(Params{Dir: dir, Globs: globs("*.yaml", "none/*.yaml", "loop", "loop/l.yaml"), Log: slog.New(slog.DiscardHandler)})
	err := s.Load(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	want := strings.ReplaceAll(`connectd.yaml:2: catalog.files[1]: no file matches "none/*.yaml"
connectd.yaml:4: catalog.files[3]: expand "loop/l.yaml": follow DIR/loop/l.yaml: too many levels of symbolic links
DIR/a.yaml:6: bogus: unknown key
DIR/c.yaml:3: services[0].discoveryName: prod/b is taken by DIR/b.yaml:3
DIR/loop: not a regular file`, "DIR", dir)
	if err.Error() != want {
		t.Errorf("got:\n%s\nwant:\n%s", err, want)
	}
	if services, _ := s.Snapshot(); len(services) != 1 || services[0].Name.DiscoveryName != "b" {
		t.Errorf("got %v", services)
	}
}
