package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil/docker"
)

// TestECSNames: a program that resolves before each connect notices nothing of
// a time with neither daemon nor resolver; and unload leaves the hosts file of
// Docker as others have it.
func TestECSNames(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	i.task("awsvpc", "orders", serves("orders", 8080, ""), "serve", ":8080", "orders")
	i.active("prod/orders", 1)
	off := map[string]string{"connectd.off": "true"}
	for k, v := range callsOnly {
		off[k] = v
	}
	left := i.task("awsvpc", "left", off, "wait")
	plain := i.hosts(left, "main")

	loads := map[string]*docker.Task{}
	for _, mode := range []string{"awsvpc", "bridge"} {
		loads[mode] = i.spec(docker.TaskSpec{NetworkMode: mode, Family: "load", ExtraHosts: []string{"own.example:10.9.9.9"}, Containers: []docker.ContainerSpec{
			{Name: "main", Image: "app", Labels: callsOnly, Cmd: []string{"load", "http://orders/", "18s"}},
			{Name: "stay", Image: "app", Cmd: []string{"wait"}},
		}})
	}
	files := map[string]string{}
	for mode, task := range loads {
		files[mode] = fmt.Sprintf("/proc/%d/root/etc/hosts", task.Container("main").PID)
		i.eventually(5*time.Second, func() error {
			b, err := os.ReadFile(files[mode])
			if err != nil || !strings.Contains(string(b), "\torders\n") || !strings.Contains(string(b), "own.example") {
				return fmt.Errorf("%s: hosts file %q (%v)", mode, b, err)
			}
			return nil
		})
	}
	i.dns.SetLink(false)
	i.daemon.kill()
	pause(t.Context(), 8*time.Second)
	i.start()
	for mode, task := range loads {
		if o := i.outcome(task, "main"); o.OK < 100 || len(o.Errors) > 0 || o.Bodies["orders"] != o.OK {
			t.Errorf("%s: %+v, want no failure", mode, o)
		} else {
			t.Logf("%s: %d calls", mode, o.OK)
		}
	}
	if got := i.hosts(left, "main"); got != plain {
		t.Errorf("connectd.off: the hosts file was %q, is %q", plain, got)
	}

	type file struct {
		inode uint64
		text  string
	}
	stay := loads["awsvpc"].Container("stay") // main has ended
	look := func() file {
		t.Helper()
		path := fmt.Sprintf("/proc/%d/root/etc/hosts", stay.PID)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return file{st.Ino, string(b)}
	}
	before := look()
	if !strings.Contains(before.text, "\torders\n") {
		t.Errorf("before unload the hosts file is %q", before.text)
	}
	i.daemon.stop()
	if out, code := i.cli("unload"); code != 0 {
		t.Fatalf("unload: exit %d\n%s", code, out)
	}
	after := look()
	head, rest, _ := strings.Cut(before.text, "# connectd begin")
	_, tail, _ := strings.Cut(rest, "# connectd end\n")
	want := head + tail
	if after.inode != before.inode || after.text != want || !strings.Contains(after.text, "own.example") {
		t.Errorf("unload: inode %d to %d, hosts file %q, want %q", before.inode, after.inode, after.text, want)
	}
	if got := i.hosts(left, "main"); got != plain {
		t.Errorf("connectd.off after unload: the hosts file was %q, is %q", plain, got)
	}
}
