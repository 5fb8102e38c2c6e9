package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectd/pkg/testutil"
)

func TestCgroupClient(t *testing.T) {
	s := newStatic(t)
	g := testutil.NewCgroup(t)
	inner := g.Child("inner")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(inner.Path(), link); err != nil {
		t.Fatal(err)
	}
	conf := resolvConf(t, "10.0.0.2")
	err := s.Set([]Client{
		{Name: "outer", Cgroup: g.Path(), ResolvConf: conf},
		{Name: "inner", Cgroup: inner.Path() + "/", ResolvConf: conf},
		{Name: "link", Cgroup: link, ResolvConf: conf},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		id    uint64
		level uint8
	}{"outer": {g.ID(), 1}, "inner": {inner.ID(), 2}, "link": {inner.ID(), 2}} {
		got := find(t, s, name)
		if got.CgroupID != want.id || got.CgroupLevel != want.level || got.NetnsCookie != 0 || got.NetnsPath != "" {
			t.Errorf("task %+v, want cgroup %d at level %d", got, want.id, want.level)
		}
		if ns, ok := s.Namespace(name); !ok || ns != nil {
			t.Errorf("namespace of %s is not the node's own", name)
		}
	}
	if _, ok := s.ByCookie(0); ok {
		t.Error("a cgroup client is found by cookie")
	}

	// The same path, made again, is another cgroup.
	before := find(t, s, "inner").CgroupID
	inner.Close()
	refresh(t, s, true, "outer")
	g.Child("inner")
	refresh(t, s, true, "inner link outer")
	if find(t, s, "inner").CgroupID == before {
		t.Error("a cgroup that was made again has the id of the one before")
	}
}

func TestCgroupRefused(t *testing.T) {
	s := newStatic(t)
	g := testutil.NewCgroup(t)
	deep := g
	for range maxDepth - 1 {
		deep = deep.Child("d")
	}
	conf := resolvConf(t, "10.0.0.2")
	if err := s.Set([]Client{{Name: "deepest", Cgroup: deep.Path(), ResolvConf: conf}}); err != nil {
		t.Errorf("level %d: %s", maxDepth, err)
	}
	if level := find(t, s, "deepest").CgroupLevel; level != maxDepth {
		t.Errorf("level %d, want %d", level, maxDepth)
	}
	for path, want := range map[string]string{
		s.CgroupRoot: "root",
		s.CgroupRoot + "/../" + filepath.Base(s.CgroupRoot): "root",
		filepath.Dir(s.CgroupRoot):                          "not below",
		t.TempDir():                                         "not below",
		g.Path() + "/none":                                  "no such file",
		filepath.Join(g.Path(), "cgroup.procs"):             "not a directory",
		deep.Child("d").Path():                              "levels deep",
	} {
		err := s.Set([]Client{{Name: "x", Cgroup: path, ResolvConf: conf}})
		if err == nil || !strings.Contains(err.Error(), want) || len(s.Tasks()) != 0 {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestCgroupRoot(t *testing.T) {
	testutil.RequireRoot(t)
	want, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err) // where there is none, CgroupRoot would mount one
	}
	if got, err := CgroupRoot(); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
