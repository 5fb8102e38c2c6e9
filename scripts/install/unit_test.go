package install

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	unitFile   = "scripts/connectd.service"
	dropInFile = "scripts/connectd-systemd219.conf"
)

// verify has systemd-analyze read a unit; it starts nothing. The program that
// the unit starts is replaced by one that is there.
func verify(t *testing.T, name, text, dropIn string) (string, int) {
	t.Helper()
	need(t, "systemd-analyze")
	dir := t.TempDir()
	text = regexp.MustCompile(`(?m)^(Exec\w+=)\S+`).ReplaceAllString(text, "${1}/bin/true")
	write(t, filepath.Join(dir, name), text, 0o644)
	if dropIn != "" {
		write(t, filepath.Join(dir, name+".d", "10.conf"), dropIn, 0o644)
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, name))
	cmd.Env = append(cmd.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	return run(t, cmd)
}

func TestUnitVerifies(t *testing.T) {
	unit := read(t, unitFile)
	for _, test := range []struct {
		name, text, dropIn string
	}{
		{"connectd.service", unit, ""},
		{"connectd.service", unit, read(t, dropInFile)},
		{"connectd-mounts.service", heredocs(t)["connectd-mounts.service"], ""},
	} {
		if out, code := verify(t, test.name, test.text, test.dropIn); code != 0 || out != "" {
			t.Errorf("%s: exit code %d:\n%s", test.name, code, out)
		}
	}
	for _, wrong := range []string{"Type=notfy", "SystemCallFilter=@sytem-service", "StartLimitIntervallSec=0"} {
		if out, code := verify(t, "connectd.service", unit+"\n[Service]\n"+wrong+"\n", ""); code == 0 && out == "" {
			t.Errorf("%s is not found out", wrong)
		}
	}
}

// TestCapabilitiesAreExplained: each capability has its reason beside it, and
// the container has the same ones. A test in daemon/e2e starts the daemon with
// them, and with each left out.
func TestCapabilitiesAreExplained(t *testing.T) {
	var caps, explained []string
	for line := range strings.Lines(read(t, unitFile)) {
		if list, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			caps = append(caps, strings.Fields(list)...)
		}
		if m := regexp.MustCompile(`^# (CAP_[A-Z_]+) +[a-z]`).FindStringSubmatch(line); m != nil {
			explained = append(explained, m[1])
		}
	}
	if len(caps) == 0 || !slices.Equal(caps, explained) {
		t.Errorf("the unit has %v and explains %v", caps, explained)
	}
	var container []string
	for _, c := range containerCapabilities(t) {
		container = append(container, "CAP_"+c)
	}
	if !slices.Equal(caps, container) {
		t.Errorf("the unit has %v, the container %v", caps, container)
	}
}

// since is the version of systemd that brought a directive of the unit, where
// that is later than Amazon Linux 2's 219, and what becomes of it there.
var since = map[string]struct {
	version int
	instead string
}{
	"StartLimitIntervalSec":    {230, "StartLimitInterval= in the drop-in"},
	"AmbientCapabilities":      {229, "none is what it sets anyway"},
	"StateDirectory":           {235, "user data makes it"},
	"StateDirectoryMode":       {235, "user data sets it"},
	"RuntimeDirectoryPreserve": {235, "the socket's folder goes at a stop and is made at a start"},
	"LogsDirectory":            {235, "user data makes it"},
	"ReadWritePaths":           {231, "nothing to except, ProtectSystem=full leaves these writable"},
	"ProtectControlGroups":     {232, "less protection"},
	"ProtectKernelTunables":    {232, "less protection"},
	"ProtectKernelModules":     {232, "less protection"},
	"ProtectKernelLogs":        {244, "less protection"},
	"ProtectClock":             {245, "less protection"},
	"ProtectHostname":          {242, "less protection"},
	"RestrictNamespaces":       {233, "less protection"},
	"RestrictRealtime":         {231, "less protection"},
	"RestrictSUIDSGID":         {242, "less protection"},
	"LockPersonality":          {235, "less protection"},
	"MemoryDenyWriteExecute":   {231, "less protection"},
}

// known219 is what systemd 219 has, with the values that the unit uses.
var known219 = strings.Fields(`Description Before After Type NotifyAccess ExecStart ExecReload Restart RestartSec
	WatchdogSec TimeoutStartSec TimeoutStopSec KillMode LimitNOFILE LimitMEMLOCK OOMScoreAdjust CapabilityBoundingSet
	NoNewPrivileges ProtectSystem RuntimeDirectory ProtectHome PrivateTmp PrivateDevices RestrictAddressFamilies
	SystemCallArchitectures SystemCallFilter SystemCallErrorNumber UMask WantedBy`)

// TestOldSystemd: of each directive it is known what systemd 219 makes of it,
// and values that it would misread are set anew by the drop-in.
func TestOldSystemd(t *testing.T) {
	used := map[string]bool{}
	unit := code(read(t, unitFile))
	for _, line := range unit {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		used[key] = true
		if _, late := since[key]; !late && !slices.Contains(known219, key) {
			t.Errorf("%s= is in neither table: which systemd brought it, and what does 219 do?", key)
		}
		misread := key == "SystemCallFilter" && strings.Contains(value, "@") || key == "ProtectSystem" && value == "strict"
		if misread && !slices.ContainsFunc(code(read(t, dropInFile)), func(l string) bool { return strings.HasPrefix(l, key+"=") }) {
			t.Errorf("%s means something else to systemd 219, and the drop-in does not reset it", line)
		}
	}
	for key := range since {
		if !used[key] {
			t.Errorf("%s= is in the table and not in the unit", key)
		}
	}
	if want := []string{"[Service]", "SystemCallFilter=", "StartLimitInterval=0", "ProtectSystem=full"}; !slices.Equal(code(read(t, dropInFile)), want) {
		t.Errorf("the drop-in says %q", code(read(t, dropInFile)))
	}
}

// TestOrder: the unit is there before the agent starts tasks, and the agent
// waits for nothing of it.
func TestOrder(t *testing.T) {
	unit := code(read(t, unitFile))
	for _, want := range []string{"Before=docker.service ecs.service", "Type=notify", "WantedBy=multi-user.target", "Restart=always"} {
		if !slices.Contains(unit, want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	for _, line := range unit {
		if regexp.MustCompile(`^(Requires|BindsTo|Requisite|PartOf|RequiredBy)=`).MatchString(line) {
			t.Errorf("%s ties others to this unit", line)
		}
	}
}
