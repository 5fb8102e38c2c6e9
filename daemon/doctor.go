package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/datapath"
	"connectd/pkg/task"
)

const leastMemory = 256 << 20 // maps of the default limits, a full plan, and room for the Go heap to grow

// Doctor examines this node: whether connectd can work here, and whether a
// daemon that should be at work is. It changes nothing that lasts.
func Doctor(ctx context.Context, configPath string) []control.Check {
	x := &examination{}
	config, err := LoadConfig(configPath)
	x.verdict("config", err, configPath, "correct the file, connectd check lists every error")
	if config == nil {
		return x.checks
	}
	x.verdict("clients", config.CheckHost(), fmt.Sprintf("static clients, all there: %d", len(config.Clients)),
		"make what is missing, or take the client out of the config")
	x.host(config)
	x.features()
	if cgroup := x.cgroup(config); cgroup != "" {
		x.hooks(config, cgroup)
		x.canary(config, cgroup)
	}
	x.ecs(ctx, config)
	x.zone(ctx, config)
	x.memory()
	x.resolver()
	x.brake(config)
	x.daemon(ctx, config)
	return x.checks
}

// examination gathers findings.
type examination struct{ checks []control.Check }

func (x *examination) add(name string, s control.Severity, detail, fix string) {
	x.checks = append(x.checks, control.Check{Name: name, Severity: s, Detail: detail, Fix: fix})
}

func (x *examination) verdict(name string, err error, good, fix string) {
	if err != nil {
		x.add(name, control.SeverityFail, err.Error(), fix)
		return
	}
	x.add(name, control.SeverityOK, good, "")
}

// host tells what of the machine this process sees.
func (x *examination) host(c *Config) {
	for _, f := range lookAtHost(c) {
		switch {
		case f.err == nil:
			x.add(f.name, control.SeverityOK, f.detail, "")
		case f.fatal:
			x.add(f.name, control.SeverityFail, f.err.Error(), f.fix)
		default:
			x.add(f.name, control.SeverityWarn, f.err.Error(), f.fix)
		}
	}
}

func (x *examination) features() {
	for _, f := range datapath.Features() {
		switch {
		case f.Missing == nil:
			x.add(f.Name, control.SeverityOK, "present", "")
		case f.Needed:
			x.add(f.Name, control.SeverityFail, f.Missing.Error(), "run as root on a kernel that has it (since "+f.Since+")")
		default:
			x.add(f.Name, control.SeverityWarn, f.Lost+": "+f.Missing.Error(), "use a kernel that has it (since "+f.Since+")")
		}
	}
}

// cgroup returns where the hooks belong.
func (x *examination) cgroup(c *Config) string {
	root, err := task.FindCgroupRoot()
	x.verdict("cgroup2", err, "mounted at "+root, "connectd run mounts it at /sys/fs/cgroup/unified, which must be before the first task starts")
	if err != nil {
		return ""
	}
	if c.Cgroup != cgroupAuto {
		x.add("root of the tree", control.SeverityWarn, "the config confines the hooks to "+c.Cgroup, "only processes below it are clients; use cgroup: auto for all")
		return c.Cgroup
	}
	return root // whether it is the machine's, host has told
}

func (x *examination) hooks(c *Config, cgroup string) {
	attached, pinned := 0, 0
	var wrong []string
	all := datapath.InspectHooks(c.BPFFS, cgroup)
	for _, a := range all {
		switch {
		case a.Err == nil:
			attached++
			pinned++
		case errors.Is(a.Err, fs.ErrNotExist):
		default:
			pinned++
			wrong = append(wrong, a.Name+": "+a.Err.Error())
		}
	}
	switch {
	case len(wrong) > 0:
		x.add("hooks", control.SeverityFail, strings.Join(wrong, "; "), "restart the daemon: it attaches them anew")
	case pinned == 0:
		x.add("hooks", control.SeveritySkip, "none pinned in "+c.BPFFS+": no daemon has run since boot or unload", "")
	case attached < len(all):
		x.add("hooks", control.SeverityFail, fmt.Sprintf("%d of %d are attached", attached, len(all)), "restart the daemon")
	default:
		x.add("hooks", control.SeverityOK, fmt.Sprintf("all %d attached and effective at %s", attached, cgroup), "")
	}
	others, err := datapath.Neighbours(c.BPFFS, cgroup)
	if err != nil {
		x.add("other programs", control.SeveritySkip, err.Error(), "")
		return
	}
	if len(others) > 0 {
		x.add("other programs", control.SeverityWarn, summarize(others),
			"another agent uses the same hooks; a sockops program that returns 0 or replaces callback flags loses connections from our counts")
		return
	}
	x.add("other programs", control.SeverityOK, "none on our hooks", "")
}

// summarize names a few of the programs; bpftool lists all.
func summarize(others []datapath.Neighbour) string {
	const few = 4
	var names []string
	for _, n := range others[:min(few, len(others))] {
		names = append(names, fmt.Sprintf("%s on %s", n.Program, n.Hook))
	}
	if more := len(others) - few; more > 0 {
		names = append(names, fmt.Sprintf("and %d more (bpftool cgroup tree lists them)", more))
	}
	return strings.Join(names, ", ")
}

func (x *examination) canary(c *Config, cgroup string) {
	err := datapath.Canary(datapath.Params{
		Log: newLogger(&Config{LogLevel: 100}), BPFFS: c.BPFFS, Cgroup: cgroup, VIP4: c.VIPCIDR, VIP6: c.VIPCIDR6,
	})
	x.verdict("canary connection", err, "a VIP led to its endpoint and was counted", "see the kernel features above; run as root in the host's cgroup namespace")
}

// memory looks at the limit of the daemon's own cgroup, to which its maps are
// charged too.
func (x *examination) memory() {
	limit, where, err := memoryLimit()
	switch {
	case err != nil:
		x.add("memory limit", control.SeveritySkip, err.Error(), "")
	case limit > 0 && limit < leastMemory:
		x.add("memory limit", control.SeverityWarn, fmt.Sprintf("%d MiB (%s); maps are charged to it", limit>>20, where),
			fmt.Sprintf("give the daemon at least %d MiB, or lower limits in the config", leastMemory>>20))
	case limit == 0:
		x.add("memory limit", control.SeverityOK, "none", "")
	default:
		x.add("memory limit", control.SeverityOK, fmt.Sprintf("%d MiB", limit>>20), "")
	}
}

func memoryLimit() (limit uint64, where string, err error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, "", err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		path := ""
		switch {
		case f[1] == "memory":
			path = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes")
		case f[0] == "0":
			path = filepath.Join("/sys/fs/cgroup", f[2], "memory.max")
		default:
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the controller is in the other hierarchy, or at the root
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n < 1<<60 { // v1 writes "no limit" as a huge number, v2 as "max"
			return n, path, nil
		}
	}
	return 0, "", nil
}

// resolver finds what keeps name lookups from being DNS queries.
func (x *examination) resolver() {
	b, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		x.add("name lookups", control.SeverityOK, "no nsswitch.conf: files, then DNS", "")
		return
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == "hosts:" && strings.Contains(line, "resolve") {
			x.add("name lookups", control.SeverityWarn, "nss-resolve asks systemd-resolved over a unix socket, past port 53",
				"take 'resolve' out of the hosts line of /etc/nsswitch.conf for clients that share this node's files")
			return
		}
	}
	if _, err := os.Stat("/run/nscd/socket"); err == nil {
		x.add("name lookups", control.SeverityWarn, "nscd answers name lookups over a unix socket, in its own network namespace",
			"switch its hosts cache off, or stop it, for clients that share /run with this node")
		return
	}
	x.add("name lookups", control.SeverityOK, "go to DNS", "")
}

func (x *examination) brake(c *Config) {
	since, attribute, err := readBrake(c.StateDir)
	switch {
	case err != nil:
		x.add("brake", control.SeveritySkip, err.Error(), "")
	case !since.IsZero():
		x.add("brake", control.SeverityWarn, "connectd is OFF on this node "+whoPulls(attribute)+", since "+since.Format(time.RFC3339)+": no task is served", "connectd on")
	default:
		x.add("brake", control.SeverityOK, "not pulled: tasks are served", "")
	}
}

func (x *examination) daemon(ctx context.Context, c *Config) {
	s, err := control.NewClient(c.ControlSocket).Status(ctx)
	if err != nil {
		x.add("daemon", control.SeveritySkip, err.Error(), "start it: connectd run")
		return
	}
	var problems []string
	for _, p := range s.Problems {
		problems = append(problems, p.Message)
	}
	if len(problems) > 0 {
		x.add("daemon", control.SeverityWarn, fmt.Sprintf("%s: %s", s.Verdict, strings.Join(problems, "; ")), "connectd status shows more")
		return
	}
	x.add("daemon", control.SeverityOK, fmt.Sprintf("pid %d is %s", s.PID, s.Verdict), "")
}
