package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/control"
	"connectd/pkg/plan"
)

func (d *daemon) status() control.Status {
	c, p, loop := d.config.Load(), d.plan(), d.loop.Status()
	out := control.Status{
		Problems: []control.Problem{}, Version: Version, PID: os.Getpid(), Started: d.started,
		UptimeSeconds: time.Since(d.started).Seconds(), NotReady: d.notReady(), Off: d.offSince(),
		Config: d.configStatus(), Tasks: d.taskStatus(c), Kernel: d.kernelStatus(),
		Reconcile: control.Reconcile{
			Revision: loop.Planned, Applied: loop.Revision, LagSeconds: loop.Lag.Seconds(), Errors: loop.Errors,
			LastError: loop.Error, LastErrorAt: loop.ErrorAt, Failing: loop.Error != "", Repaired: loop.Repaired,
		},
		Endpoints: control.StateCounts{},
	}
	for _, problem := range p.Problems {
		out.Problems = append(out.Problems, control.Problem{Name: "leftOut", Message: problem, Fix: "raise limits in the config, stop the daemon, run connectd unload, start it: maps keep their size until then"})
	}
	out.Zone = d.zone.id()
	out.Problems = append(out.Problems, d.zone.status()...)
	out.Problems = append(out.Problems, d.ecsStatus()...)
	problems, registries := d.registryStatus()
	out.Problems = append(out.Problems, problems...)
	for _, f := range d.access.Failing() {
		out.Problems = append(out.Problems, control.Problem{Name: "accessLog", Message: fmt.Sprintf("requests are not logged to %s: %s", f.Path, f.Err), Fix: "make the folder, or room; it is tried again every second"})
	}
	_, files := d.catalog.Snapshot()
	for _, f := range append(files, registries...) {
		cf := control.CatalogFile{Path: f.Path, Services: f.Services, Loaded: f.Loaded}
		if f.Err != nil {
			cf.Errors = strings.Split(f.Err.Error(), "\n")
		}
		out.Catalog = append(out.Catalog, cf)
	}
	for _, s := range p.Services {
		countService(&out, s)
	}
	return out
}

// summary is the status in a line.
func (d *daemon) summary() string {
	if waiting := d.notReady(); waiting != nil {
		return "not ready: waiting for " + strings.Join(waiting, " and ")
	}
	p := d.plan()
	line := fmt.Sprintf("ready: %d services, %d tasks", len(p.Services), len(p.Tasks))
	if n := len(d.seats.Errors()); n > 0 {
		line += fmt.Sprintf(", %d of them not attached", n)
	}
	if d.loop.Status().Error != "" {
		line += ", the kernel cannot be written"
	}
	return line
}

func countService(out *control.Status, s *plan.Service) {
	for _, e := range s.Endpoints {
		out.Endpoints[e.State.String()]++
	}
	if len(s.Names) == 0 {
		return // gone from the catalog, its last connections are ending
	}
	out.Services.Total++
	if s.Panic {
		out.Services.Panic++
	}
	if s.LastResort {
		out.Services.LastResort++
	}
	if len(s.SlotsV4)+len(s.SlotsV6) == 0 {
		out.Services.NoEndpoint++
	}
}

func (d *daemon) configStatus() control.Config {
	r := &d.reload
	r.mu.Lock()
	defer r.mu.Unlock()
	out := control.Config{Path: d.configPath, Loaded: r.loaded, Failed: r.failed, RestartNeeded: r.needRestart}
	if r.err != nil {
		out.Error = r.err.Error()
	}
	return out
}

func (d *daemon) taskStatus(c *Config) []control.Task {
	problems, unattached := d.tasks.static.Problems(), d.seats.Errors()
	out := make([]control.Task, 0, len(c.Clients))
	for _, cl := range c.Clients {
		t := control.Task{Name: cl.Name, Kind: "netns", Target: cl.NetnsPath(), Namespaces: cl.Namespaces}
		switch {
		case cl.Cgroup != "":
			t.Kind, t.Target = "cgroup", cl.Cgroup
		case cl.PID != 0:
			t.Kind, t.Target = "pid", strconv.Itoa(cl.PID)
		}
		_, t.Attached = d.seated.Load(cl.Name)
		if err := errors.Join(problems[cl.Name], unattached[cl.Name]); err != nil {
			t.Error = err.Error()
		}
		out = append(out, t)
	}
	return out
}

func (d *daemon) kernelStatus() control.Kernel {
	out := control.Kernel{Release: kernelRelease(), Cgroup: d.datapath.Cgroup()}
	for _, a := range d.datapath.Attachments() {
		p := control.Program{Name: a.Name, Attached: a.Err == nil}
		if a.Err != nil {
			p.Error = a.Err.Error()
		}
		out.Programs = append(out.Programs, p)
	}
	maps, err := d.datapath.Maps()
	if err != nil {
		d.log.Warn("read maps", "error", err)
	}
	for _, m := range maps {
		out.Maps = append(out.Maps, control.MapFill(m))
	}
	return out
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
