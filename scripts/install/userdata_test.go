package install

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	userData = "scripts/user-data.sh"
	url      = "https://example.com/connectd"

	mountsAL2023 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"
	mountsAL2    = "tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,mode=755 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"
)

// fakes stand in for the programs that would change the machine. Each notes
// how it was called.
var fakes = map[string]string{
	"systemctl": `echo "systemctl $*" >>"$CALLS"
case $1 in --version) echo "systemd $SYSTEMD"; echo "+PAM";; start|restart) exit "${START:-0}";; esac`,
	"curl": `case "$*" in
*) echo "curl $*" >>"$CALLS"; while [ $# -gt 0 ]; do [ "$1" = -o ] && cp "$SERVED" "$2" && exit; shift; done; exit 22;;
esac`,
	"aws": `echo "aws $*" >>"$CALLS"
for to; do :; done; cp "$SERVED" "$to"`,
	"mount": `echo "mount $*" | sed "s|$DESTDIR||" >>"$CALLS"
[ "$1" = -t ] && echo "$3 ${4#"$DESTDIR"} $2 rw 0 0" >>"$DESTDIR/proc/mounts"; exit 0`,
	"yum": `echo "yum $*" >>"$CALLS"; exit 1`,
}

// node is a machine in a folder.
type node struct {
	t      *testing.T
	root   string
	env    map[string]string
	served string // what is at the address
}

func newNode(t *testing.T, mounts, systemd string) *node {
	need(t, "bash")
	dir := t.TempDir()
	n := &node{t: t, root: filepath.Join(dir, "root"), served: filepath.Join(dir, "served")}
	for name, text := range fakes {
		write(t, filepath.Join(dir, "fakes", name), "#!/bin/sh\n"+text+"\n", 0o755)
	}
	write(t, n.path("/proc/mounts"), mounts, 0o644)
	write(t, n.path("/sys/fs/bpf/.keep"), "", 0o644)
	n.env = map[string]string{
		"PATH": filepath.Join(dir, "fakes") + ":/usr/bin:/bin", "DESTDIR": n.root,
		"CALLS": filepath.Join(dir, "calls"), "SERVED": n.served, "SYSTEMD": systemd,
		"CONNECTD_URL": url, "CONNECTD_NAMESPACES": "prod,tools",
	}
	n.serve("1")
	return n
}

func (n *node) path(p string) string { return filepath.Join(n.root, p) }

// serve puts a version of the binary at the address, and its sum into the
// parameters.
func (n *node) serve(version string) {
	text := "#!/bin/sh\necho connectd " + version + "\n"
	write(n.t, n.served, text, 0o644)
	sum := sha256.Sum256([]byte(text))
	n.env["CONNECTD_SHA256"] = hex.EncodeToString(sum[:])
}

// install runs the script and returns what it said, how it ended, and what it
// called.
func (n *node) install() (out string, code int, calls []string) {
	n.t.Helper()
	write(n.t, n.env["CALLS"], "", 0o644)
	cmd := exec.Command("bash", filepath.Join(top, userData))
	cmd.Env = []string{}
	for k, v := range n.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, code = run(n.t, cmd)
	b, err := os.ReadFile(n.env["CALLS"])
	if err != nil {
		n.t.Fatal(err)
	}
	return out, code, strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (n *node) mustInstall() []string {
	n.t.Helper()
	out, code, calls := n.install()
	if code != 0 {
		n.t.Fatalf("exit code %d:\n%s", code, out)
	}
	return calls
}

func (n *node) file(path string) string {
	b, err := os.ReadFile(n.path(path))
	if err != nil {
		n.t.Error(err)
	}
	return string(b)
}

// tree is all files, with mode, time and content.
func (n *node) tree() map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(n.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprint(st.Mode(), st.ModTime(), string(b))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

// heredocs are the files that user data brings along, by name.
func heredocs(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	re := regexp.MustCompile(`(?ms)^ *put \d+ "[^"]*/([^/"]+)" <<'(?:UNIT|MOUNTS)'\n(.*?)^(?:UNIT|MOUNTS)\n`)
	for _, m := range re.FindAllStringSubmatch(read(t, userData), -1) {
		found[m[1]] = m[2]
	}
	return found
}

// TestUserDataBringsTheUnit: an instance has the unit that stands in the
// repository, but for its comments. All of it fits user data.
func TestUserDataBringsTheUnit(t *testing.T) {
	brought := heredocs(t)
	if !slices.Equal(code(brought["connectd.service"]), code(read(t, unitFile))) {
		t.Errorf("user data has another unit than %s", unitFile)
	}
	if !slices.Equal(code(brought["10-systemd219.conf"]), code(read(t, dropInFile))) {
		t.Errorf("user data has another drop-in than %s", dropInFile)
	}
	if size := len(read(t, userData)); size > 14<<10 {
		t.Errorf("%d bytes: user data has room for 16 KiB, parameters included", size)
	}
}

func TestUserDataIsClean(t *testing.T) {
	need(t, "shellcheck")
	if out, code := run(t, exec.Command("shellcheck", filepath.Join(top, userData))); code != 0 {
		t.Error(out)
	}
	cmd := exec.Command("shellcheck", "-")
	cmd.Stdin = strings.NewReader(heredocs(t)["connectd-mounts"])
	if out, code := run(t, cmd); code != 0 {
		t.Error(out)
	}
}

func TestUserDataOnAL2023(t *testing.T) {
	n := newNode(t, mountsAL2023, "252 (252.23-1.amzn2023)")
	calls := n.mustInstall()
	if want := []string{"systemctl --version", "systemctl daemon-reload", "systemctl enable connectd-mounts.service connectd.service", "systemctl restart connectd.service"}; !slices.Equal(calls[1:], want) || !strings.HasSuffix(calls[0], " "+url) {
		t.Errorf("it called %q", calls)
	}
	if got := n.file("/usr/local/bin/connectd"); !strings.Contains(got, "connectd 1") {
		t.Errorf("the binary is %q", got)
	}
	if _, err := os.Stat(n.path("/etc/systemd/system/connectd.service.d")); err == nil {
		t.Error("there is a drop-in for systemd 219")
	}
	if got, want := n.file("/etc/connectd/connectd.yaml"), "# Written by user data: when that runs again, other changes are lost.\nzone: auto\necs:\n  namespaces: [\"prod\", \"tools\"]\ncloudMap: {region: auto}\n"; got != want {
		t.Errorf("the config is\n%s", got)
	}

	before := n.tree()
	calls = n.mustInstall()
	if after := n.tree(); !maps.Equal(before, after) {
		t.Error("a second run has changed files")
	}
	if want := []string{"systemctl --version", "systemctl daemon-reload", "systemctl enable connectd-mounts.service connectd.service", "systemctl start connectd.service"}; !slices.Equal(calls, want) {
		t.Errorf("the second time it called %q", calls)
	}

	n.serve("2")
	if calls = n.mustInstall(); !slices.Contains(calls, "systemctl restart connectd.service") {
		t.Errorf("for an upgrade it called %q", calls)
	}
	if got := n.file("/usr/local/bin/connectd"); !strings.Contains(got, "connectd 2") {
		t.Errorf("after an upgrade the binary is %q", got)
	}
	if left, _ := filepath.Glob(n.path("/usr/local/bin/connectd?*")); left != nil {
		t.Errorf("it leaves %v", left)
	}
}

func TestUserDataOnAL2(t *testing.T) {
	n := newNode(t, mountsAL2, "219")
	n.env["CONNECTD_URL"] = "s3://bucket/connectd"
	calls := n.mustInstall()
	want := []string{"mount -t bpf bpf /sys/fs/bpf", "mount -o remount,rw /sys/fs/cgroup", "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"}
	if !slices.Equal(calls[1:4], want) || !strings.HasPrefix(calls[0], "aws s3 cp --only-show-errors s3://bucket/connectd ") {
		t.Errorf("it called %q", calls)
	}
	if got := n.file("/etc/systemd/system/connectd.service.d/10-systemd219.conf"); !strings.Contains(got, "\nSystemCallFilter=\n") {
		t.Errorf("the drop-in is %q", got)
	}
	if st, err := os.Stat(n.path("/var/lib/connectd")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the state's folder: %v, %v", st, err)
	}
	before := n.tree()
	calls = n.mustInstall()
	if after := n.tree(); !maps.Equal(before, after) || slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "mount") }) {
		t.Errorf("a second run changes something: %q", calls)
	}
}

// TestUserDataRefuses: whatever is wrong is said, and nothing is changed, on a
// new node and on one that has connectd.
func TestUserDataRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"wrong sum": {map[string]string{"CONNECTD_SHA256": strings.Repeat("0", 64)}, []string{url + " has the SHA-256 ", ", not 000", "nothing was changed"}},
		"nothing given": {map[string]string{"CONNECTD_URL": "", "CONNECTD_SHA256": ""},
			[]string{"CONNECTD_URL is missing", "CONNECTD_SHA256 is not 64 hex digits", "nothing was changed"}},
		"address": {map[string]string{"CONNECTD_URL": "http://example.com/connectd"}, []string{"neither https:// nor s3://"}},
		"names":   {map[string]string{"CONNECTD_NAMESPACES": "prod, tools"}, []string{"no list such as prod,tools"}},
		"quotes":  {map[string]string{"CONNECTD_NAMESPACES": "a\"]\nzone: x"}, []string{"no list such as prod,tools"}},
		"choice":  {map[string]string{"CONNECTD_CLOUD_MAP": "maybe"}, []string{"neither yes nor no"}},
		"away":    {map[string]string{"SERVED": "/nowhere"}, []string{"cannot fetch " + url, "nothing was changed"}},
		"s3 away": {map[string]string{"CONNECTD_URL": "s3://bucket/x", "SERVED": "/nowhere"}, []string{"cannot fetch s3://bucket/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, installed := range []bool{false, true} {
				n := newNode(t, mountsAL2, "219")
				if installed {
					n.mustInstall()
					n.serve("2")
				}
				maps.Copy(n.env, test.env)
				before := n.tree()
				out, code, calls := n.install()
				if code != 1 || !maps.Equal(before, n.tree()) {
					t.Errorf("installed %v: exit code %d, or something changed:\n%s", installed, code, out)
				}
				for _, want := range test.want {
					if !strings.Contains(out, want) {
						t.Errorf("installed %v: %q is not in\n%s", installed, want, out)
					}
				}
				if slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "systemctl") || strings.HasPrefix(c, "mount") }) {
					t.Errorf("installed %v: it called %q", installed, calls)
				}
			}
		})
	}
}

// TestUserDataForeignBinary: a binary for another processor is found before it
// replaces one that works.
func TestUserDataForeignBinary(t *testing.T) {
	n := newNode(t, mountsAL2023, "252")
	text := "\x7fELF no program"
	write(t, n.served, text, 0o644)
	sum := sha256.Sum256([]byte(text))
	n.env["CONNECTD_SHA256"] = hex.EncodeToString(sum[:])
	before := n.tree()
	if out, code, _ := n.install(); code != 1 || !strings.Contains(out, "does not run here") || !maps.Equal(before, n.tree()) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestUserDataConfig(t *testing.T) {
	n := newNode(t, mountsAL2023, "252")
	const file = "/etc/connectd/connectd.yaml"
	delete(n.env, "CONNECTD_NAMESPACES")
	if out, code, _ := n.install(); code != 1 || !strings.Contains(out, "CONNECTD_NAMESPACES is missing: there is no "+n.path(file)) {
		t.Errorf("without a config: exit code %d:\n%s", code, out)
	}
	n.env["CONNECTD_CONFIG"] = "ecs: {namespaces: [a]}\n# \"as it is\" $HOME"
	n.mustInstall()
	if got, want := n.file(file), n.env["CONNECTD_CONFIG"]+"\n"; got != want {
		t.Errorf("given as text the config is\n%s", got)
	}
	delete(n.env, "CONNECTD_CONFIG")
	write(t, n.path(file), "mine\n", 0o600)
	n.mustInstall()
	if got := n.file(file); got != "mine\n" {
		t.Errorf("without parameters the config becomes\n%s", got)
	}
	n.env["CONNECTD_NAMESPACES"], n.env["CONNECTD_CLOUD_MAP"] = "prod", "no"
	if calls := n.mustInstall(); !slices.Contains(calls, "systemctl restart connectd.service") {
		t.Errorf("a changed config is not in use: %q", calls)
	}
	if got, want := strings.Join(code(n.file(file)), "\n"), "zone: auto\necs:\n  namespaces: [\"prod\"]"; got != want {
		t.Errorf("without Cloud Map the config is\n%s", got)
	}
	for _, env := range []string{"", "no"} {
		n.env["CONNECTD_CLOUD_MAP"] = env
		n.mustInstall()
		loads(t, n.path(file))
	}
}

// TestUserDataNoStart: what does not start is said, and stays installed.
func TestUserDataNoStart(t *testing.T) {
	n := newNode(t, mountsAL2023, "252")
	n.env["START"] = "1"
	if out, code, _ := n.install(); code != 1 || !strings.Contains(out, "it did not start") || !strings.Contains(out, "journalctl -u connectd") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	n.file("/etc/systemd/system/connectd.service")
}
