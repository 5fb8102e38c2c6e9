package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// lookEnv makes this binary tell what it sees of the machine, as the first
// thing that a daemon does.
const lookEnv = "CONNECTD_TEST_LOOK"

// look prints a line for each finding. It enters the host's cgroups before,
// where it is told to, as Run does.
func look() int {
	if os.Getenv(lookEnv) == "enter" {
		if err := enterHostCgroups(); err != nil {
			fmt.Println("enter:", err)
			return 1
		}
		own, host, err := namespacePair("cgroup")
		fmt.Printf("entered: %t %v\n", own == host, err)
	}
	for _, f := range lookAtHost(&Config{BPFFS: "/sys/fs/bpf/connectd", Cgroup: cgroupAuto}) {
		word := "ok"
		switch {
		case f.err != nil && f.fatal:
			word = "fail"
		case f.err != nil:
			word = "warn"
		}
		fmt.Printf("%s: %s: %s %v\n", f.name, word, f.detail, f.err)
	}
	if mustSeeHost(&Config{BPFFS: "/sys/fs/bpf/connectd", Cgroup: cgroupAuto}) != nil {
		fmt.Println("no start")
	}
	return 0
}

// TestLookAtHost runs in namespaces what a container of each kind is. $look is
// the program; process 1 stands for the machine's.
func TestLookAtHost(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.BPFFS(t) // so that there is one
	own := testutil.NewCgroup(t)
	tree, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	// A pid namespace has its process 1, which has the machine's mounts.
	machine := func(script string) []string {
		return []string{"unshare", "--pid", "--fork", "--mount-proc", "sh", "-ec", script + "\n:"} // ":" keeps sh from becoming the last program
	}
	for _, test := range []struct {
		name    string
		command []string
		want    []string // lines begin so
		not     string   // in no line
	}{
		{"the machine itself", []string{"sh", "-c", "$look"},
			[]string{"pid namespace: ok", "bpffs: ok: the host's", "cgroup2 tree: ok", "network namespace: ok"}, "no start"},
		{"process 1 of a container", []string{"unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "exec $look"},
			[]string{"pid namespace: fail: the host's this is process 1 of a container", "no start"}, ""},
		{"below an init of its own", machine("$look"),
			[]string{"pid namespace: warn", "bpffs: ok", "cgroup2 tree: ok", "network namespace: ok"}, "no start"},
		{"a bpffs of its own", machine("unshare --mount sh -ec 'mount -t bpf bpf /sys/fs/bpf; $look'"),
			[]string{"bpffs: fail:  /sys/fs/bpf is a bpffs of this container's own", "no start"}, ""},
		{"no bpffs", machine("unshare --mount sh -ec 'umount /sys/fs/bpf; $look'"),
			[]string{"bpffs: fail:  /sys/fs/bpf/connectd is on none", "no start"}, ""},
		{"the host's bpffs in mounts of its own", machine("unshare --mount $look"),
			[]string{"bpffs: ok: the host's"}, "no start"},
		{"the host's tree in a cgroup namespace of its own", machine("unshare --cgroup $look"),
			[]string{"cgroup2 tree: ok: its root is at " + tree + ", seen from a cgroup namespace"}, "no start"},
		{"its own cgroup only", machine("unshare --mount --cgroup sh -ec 'umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; $look'"),
			[]string{"cgroup2 tree: fail: its root is at /sys/fs/cgroup /sys/fs/cgroup is cgroup", "no start"}, ""},
		{"no cgroup2", machine("unshare --mount sh -ec 'umount -R /sys/fs/cgroup; $look'"),
			[]string{"cgroup2 tree: fail", "no start"}, ""},
		{"a network of its own", machine("unshare --net $look"),
			[]string{"network namespace: warn"}, "no start"},
		{"a container of ECS on AL2023", machine("unshare --mount --cgroup env " + lookEnv + "=enter $look"),
			[]string{"entered: true <nil>", "cgroup2 tree: ok: its root is at " + tree + " <nil>"}, "no start"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `echo $$ >"$procs" && exec "$@"`, "sh"}, test.command...)...)
			cmd.Env = append(os.Environ(), "look=/proc/self/fd/3", lookEnv+"=look", "procs="+own.Path()+"/cgroup.procs")
			self, err := os.Open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer self.Close()
			cmd.ExtraFiles = []*os.File{self}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s\n%s", err, out)
			}
			for _, want := range test.want {
				if !strings.Contains("\n"+string(out), "\n"+want) {
					t.Errorf("no line %q", want)
				}
			}
			if test.not != "" && strings.Contains(string(out), test.not) {
				t.Errorf("a line %q", test.not)
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}
