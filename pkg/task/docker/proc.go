package docker

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// idLength is of a container's id: 256 bits in hex.
const idLength = 64

// containerID returns the container whose cgroup has this name: its id with
// the cgroupfs driver, docker-<id>.scope with systemd's. Others are "".
func containerID(name string) string {
	if scope, ok := strings.CutSuffix(name, ".scope"); ok {
		name = scope[strings.LastIndexByte(scope, '-')+1:]
	}
	if len(name) != idLength || strings.Trim(name, "0123456789abcdef") != "" {
		return ""
	}
	return name
}

// firstProcess returns the process in a new cgroup that is or will become the
// container's program, 0 while there is none. runc's own come before it: "runc
// init" puts itself into the cgroup, makes namespaces, and forks twice. The one
// that stays is the first of its pid namespace; where the container shares one,
// it has runc's name for it, or, with late, no name of runc's.
func firstProcess(cgroup string, late bool) int {
	procs, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return 0
	}
	for field := range strings.FieldsSeq(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == 0 { // 0: of a pid namespace that is not below ours
			continue
		}
		status, err := os.ReadFile("/proc/" + field + "/status")
		if err != nil {
			continue
		}
		name, inside := readStatus(string(status))
		if inside == "1" || name == "runc:[2:INIT]" || late && !strings.HasPrefix(name, "runc") {
			return pid
		}
	}
	return 0
}

// readStatus returns a process's name, and its pid in the innermost namespace
// if that is not the reader's.
func readStatus(status string) (name, inside string) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Name":
			name = strings.TrimSpace(value)
		case "NSpid":
			if pids := strings.Fields(value); len(pids) > 1 {
				inside = pids[len(pids)-1]
			}
		}
	}
	return name, inside
}

// containerCgroup returns the cgroup2 directory of a container by its first
// process. It is "" where the container has none of its own: runc before 1.1
// leaves processes in Docker's where v1 has the controllers.
func containerCgroup(root, id string, pid int) string {
	if root == "" {
		return ""
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if ok && containerID(filepath.Base(path)) == id {
			return filepath.Join(root, path)
		}
	}
	return ""
}
