package task

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
	"connectd/pkg/testutil"
)

// TestNetnsComesAndGoes: a client is a task while its path leads to a
// namespace, and another task when it leads to another.
func TestNetnsComesAndGoes(t *testing.T) {
	s := newStatic(t)
	w := testutil.NewWorld(t)
	web, other := w.Host("web"), w.Host("other")
	path := t.TempDir() + "/web" // where web's namespace, later other's, is bound
	clients := []Client{
		{Name: "web", NetnsPath: path, Namespaces: []string{"prod"}, ResolvConf: resolvConf(t, "10.0.0.2")},
		{Name: "other", NetnsPath: other.Path(), ResolvConf: resolvConf(t, "10.0.0.3")},
	}
	err := s.Set(clients)
	if err == nil || !strings.Contains(err.Error(), "client web: ") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("set says %v of a path that is not there", err)
	}
	refresh(t, s, false, "other")

	bind := func(from string) {
		t.Helper()
		write(t, path, "")
		if err := unix.Mount(from, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	unbind := func() {
		t.Helper()
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	bind(web.Path())
	refresh(t, s, true, "other web")
	first := find(t, s, "web")
	want, err := cookie(web.NS())
	if err != nil {
		t.Fatal(err)
	}
	if first.NetnsCookie != want || first.CgroupID != 0 || first.NetnsPath != path || !slices.Equal(first.Namespaces, []string{"prod"}) {
		t.Errorf("task %+v, want cookie %d", first, want)
	}
	ns, ok := s.Namespace("web")
	if !ok || ns.Inode() != web.NS().Inode() {
		t.Error("Namespace is another")
	}
	if by, ok := s.ByCookie(want); !ok || by != ns {
		t.Error("ByCookie is another")
	}
	refresh(t, s, false, "other web")
	if again, _ := s.Namespace("web"); again != ns {
		t.Error("a namespace that stays was opened again")
	}
	if len(s.Problems()) != 0 {
		t.Errorf("problems %v", s.Problems())
	}

	unbind()
	refresh(t, s, true, "other")
	if _, ok := s.Namespace("web"); ok {
		t.Error("Namespace finds one that is gone")
	}
	if _, ok := s.ByCookie(want); ok {
		t.Error("ByCookie finds one that is gone")
	}
	if err := s.Problems()["web"]; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("problem %v", err)
	}
	// A file without a namespace is what `ip netns delete` may leave.
	write(t, path, "")
	refresh(t, s, false, "other")
	if err := s.Problems()["web"]; err == nil || !strings.Contains(err.Error(), "not a namespace") {
		t.Errorf("problem %v", err)
	}

	bind(web.Path())
	refresh(t, s, true, "other web")
	// The path leads elsewhere between two looks.
	unbind()
	bind(other.Path())
	refresh(t, s, true, "other web")
	if got := find(t, s, "web"); got.NetnsCookie == want {
		t.Error("the task has the cookie of the namespace before")
	}
}

// TestNamespaceDies: once its path is gone and Refresh has seen it, nothing
// keeps a namespace.
func TestNamespaceDies(t *testing.T) {
	s := newStatic(t)
	w := testutil.NewWorld(t)
	web, cron := w.Host("web"), w.Host("cron")
	conf := resolvConf(t, "10.0.0.2")
	both := []Client{{Name: "web", NetnsPath: web.Path(), ResolvConf: conf}, {Name: "cron", NetnsPath: cron.Path(), ResolvConf: conf}}
	if err := s.Set(both); err != nil {
		t.Fatal(err)
	}
	ns, _ := s.Namespace("web")
	inode, cronInode := web.NS().Inode(), cron.NS().Inode()
	web.Close()
	if err := alive(inode); err == nil {
		t.Error("nothing held the namespace before Refresh: the test tests nothing")
	}
	refresh(t, s, true, "cron")
	testutil.Eventually(t, 5*time.Second, func() error { return alive(inode) })
	if err := ns.Do(func() error { return nil }); err == nil {
		t.Error("a namespace that was let go can be entered")
	}

	// A client that the config drops is let go of at once.
	if err := s.Set(nil); err != nil || names(s) != "" {
		t.Errorf("set nothing: %v, tasks %s", err, names(s))
	}
	cron.Close()
	testutil.Eventually(t, 5*time.Second, func() error { return alive(cronInode) })
}

// TestPidClient: a client by pid is a task until the process ends, and reads
// its own resolv.conf.
func TestPidClient(t *testing.T) {
	s := newStatic(t)
	web := testutil.NewWorld(t).Host("web")
	web.ResolvConf("10.9.9.9\n")
	cmd := web.Command(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inode := web.NS().Inode()
	err := s.Set([]Client{{Name: "web", NetnsPath: fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)}})
	if err != nil {
		t.Fatal(err)
	}
	got := find(t, s, "web")
	if ns, _ := s.Namespace("web"); ns.Inode() != inode {
		t.Error("Namespace is another")
	}
	if got.ResolvConf != fmt.Sprintf("/proc/%d/root/etc/resolv.conf", cmd.Process.Pid) ||
		!slices.Equal(got.Resolvers, []netip.Addr{netip.MustParseAddr("10.9.9.9")}) {
		t.Errorf("resolvers %v from %s", got.Resolvers, got.ResolvConf)
	}
	refresh(t, s, false, "web")

	cmd.Process.Kill()
	// A zombie has no namespaces; it is looked at before it is reaped.
	testutil.Eventually(t, 5*time.Second, func() error {
		if s.Refresh(); names(s) != "" {
			return errors.New("the task is still there")
		}
		return nil
	})
	cmd.Wait()
	refresh(t, s, false, "")
	if s.Problems()["web"] == nil {
		t.Error("no problem is told")
	}
	web.Close()
	testutil.Eventually(t, 5*time.Second, func() error { return alive(inode) })
}

// TestOwnNamespaceRefused, however it is named.
func TestOwnNamespaceRefused(t *testing.T) {
	s := newStatic(t)
	for _, path := range []string{"/proc/self/ns/net", fmt.Sprintf("/proc/%d/ns/net", os.Getpid())} {
		err := s.Set([]Client{{Name: "web", NetnsPath: path, ResolvConf: resolvConf(t, "10.0.0.2")}})
		if err == nil || !strings.Contains(err.Error(), "cgroup") || len(s.Tasks()) != 0 {
			t.Errorf("%s: %v, tasks %v", path, err, s.Tasks())
		}
	}
}

// TestCookieError: a namespace without a cookie is no task, and is not held.
func TestCookieError(t *testing.T) {
	s := newStatic(t)
	s.Cookie = func(*netns.Handle) (uint64, error) { return 0, errors.New("no cookie") }
	web := testutil.NewWorld(t).Host("web")
	inode := web.NS().Inode()
	err := s.Set([]Client{{Name: "web", NetnsPath: web.Path(), ResolvConf: resolvConf(t, "10.0.0.2")}})
	if err == nil || names(s) != "" {
		t.Errorf("set says %v, tasks %s", err, names(s))
	}
	web.Close()
	testutil.Eventually(t, 5*time.Second, func() error { return alive(inode) })
}

// TestResolvConf: edits are seen, and a file that cannot be read takes nothing
// from a task that is there.
func TestResolvConf(t *testing.T) {
	s := newStatic(t)
	web := testutil.NewWorld(t).Host("web")
	named := web.ResolvConf("10.0.0.2\n")
	if err := s.Set([]Client{{Name: "web", NetnsPath: web.Path()}}); err != nil {
		t.Fatal(err)
	}
	check := func(want ...string) {
		t.Helper()
		task := find(t, s, "web")
		var got []string
		for _, a := range task.Resolvers {
			got = append(got, a.String())
		}
		if !slices.Equal(got, want) || task.ResolvConf != named {
			t.Errorf("resolvers %v from %s, want %v", got, task.ResolvConf, want)
		}
	}
	check("10.0.0.2")
	write(t, named, "10.0.0.3\n10.0.0.2\n")
	refresh(t, s, true, "web")
	check("10.0.0.3", "10.0.0.2")
	refresh(t, s, false, "web")

	before, _ := s.Namespace("web")
	if err := errors.Join(os.Remove(named), os.Mkdir(named, 0o755)); err != nil {
		t.Fatal(err)
	}
	refresh(t, s, false, "web")
	check("10.0.0.3", "10.0.0.2")
	if err := s.Problems()["web"]; err == nil || !strings.Contains(err.Error(), "resolvers") {
		t.Errorf("problem %v", err)
	}
	if now, _ := s.Namespace("web"); now != before {
		t.Error("the namespace was opened again")
	}

	// Another file that cannot be read is another matter.
	if err := s.Set([]Client{{Name: "web", NetnsPath: web.Path(), ResolvConf: t.TempDir()}}); err == nil || names(s) != "" {
		t.Errorf("set says %v, tasks %s", err, names(s))
	}
}

func TestDefaultResolvConf(t *testing.T) {
	for _, test := range []struct {
		client Client
		want   string
	}{
		{Client{Cgroup: "/sys/fs/cgroup/x"}, "/etc/resolv.conf"},
		{Client{NetnsPath: "/run/netns/not-there"}, "/etc/resolv.conf"},
		{Client{NetnsPath: "/proc/12/ns/net"}, "/proc/12/root/etc/resolv.conf"},
		{Client{NetnsPath: "/proc/12/ns/net", ResolvConf: "/x"}, "/x"},
	} {
		if got := test.client.resolvConf(); got != test.want {
			t.Errorf("%+v: %s, want %s", test.client, got, test.want)
		}
	}
}

// TestHangingResolvConf: a task's own file that hangs keeps nobody from the
// tasks that are known: the reconcile loop asks for them.
func TestHangingResolvConf(t *testing.T) {
	s := newStatic(t)
	web := testutil.NewWorld(t).Host("web")
	if err := s.Set([]Client{{Name: "web", NetnsPath: web.Path(), ResolvConf: resolvConf(t, "10.0.0.2")}}); err != nil {
		t.Fatal(err)
	}
	hangs, release := make(chan struct{}), make(chan struct{})
	s.Params.ResolvConf = func(path string) ([]netip.Addr, []string, error) {
		close(hangs)
		<-release
		return readLines(path)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Refresh() }()
	<-hangs
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		s.Tasks()
		s.Problems()
		s.Namespace("web")
		s.ByCookie(1)
	}()
	select {
	case <-asked:
	case <-time.After(5 * time.Second):
		t.Error("Tasks waits for a file")
	}
	close(release)
	<-asked
	<-done
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	s := newStatic(t)
	w := testutil.NewWorld(t)
	a, b := w.Host("a"), w.Host("b")
	conf := resolvConf(t, "10.0.0.2")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 25 {
				s.Set([]Client{{Name: "x", NetnsPath: []string{a.Path(), b.Path()}[(i+n)%2], ResolvConf: conf}})
				s.Refresh()
			}
		})
		wg.Go(func() {
			for range 50 {
				if ns, ok := s.Namespace("x"); ok {
					ns.Do(func() error { return nil }) // an error is right when it was let go meanwhile
				}
				s.Tasks()
				s.Problems()
			}
		})
	}
	wg.Wait()
	if names(s) != "x" {
		t.Errorf("tasks %s", names(s))
	}
}

// TestSameTask: whatever a task carries makes it another when it differs.
func TestSameTask(t *testing.T) {
	full := func() lb.Task {
		return lb.Task{Name: "a", Namespaces: []string{"x"}, NetnsCookie: 1, CgroupID: 2, CgroupLevel: 3, NetnsPath: "p",
			HostsFiles: []string{"h"}, ResolvConf: "r", Resolvers: []netip.Addr{netip.IPv4Unspecified()}, Search: []string{"s"}}
	}
	if !sameTask(full(), full()) {
		t.Error("equal tasks are not the same")
	}
	for name, change := range map[string]func(*lb.Task){
		"name": func(t *lb.Task) { t.Name = "" }, "namespaces": func(t *lb.Task) { t.Namespaces = nil },
		"cookie": func(t *lb.Task) { t.NetnsCookie = 0 }, "cgroup": func(t *lb.Task) { t.CgroupID = 0 },
		"level": func(t *lb.Task) { t.CgroupLevel = 0 }, "path": func(t *lb.Task) { t.NetnsPath = "" },
		"hosts": func(t *lb.Task) { t.HostsFiles = nil }, "resolv.conf": func(t *lb.Task) { t.ResolvConf = "" },
		"resolvers": func(t *lb.Task) { t.Resolvers = nil }, "search": func(t *lb.Task) { t.Search = nil },
	} {
		other := full()
		change(&other)
		if sameTask(full(), other) {
			t.Errorf("tasks that differ in %s are the same", name)
		}
	}
}
