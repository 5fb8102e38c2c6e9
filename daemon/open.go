package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"connectd/pkg/catalog/file"
	"connectd/pkg/datapath"
	"connectd/pkg/dns"
	"connectd/pkg/health"
	"connectd/pkg/metrics"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/reconcile"
	"connectd/pkg/task"
)

// What build opens, in its order; the parts of ECS and AWS are in files of
// their own.

// limitMemory makes the garbage collector work harder instead of letting the
// heap double when a large catalog changes all at once: 192 MiB with the
// default limits, where the plan and catalog of 100,000 endpoints take 80.
// GOMEMLIMIT overrides it.
func limitMemory(c *Config) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(64<<20 + int64(c.Limits.MaxEndpoints)<<10)
	}
}

func (d *daemon) openCatalog(c *Config) error {
	d.catalog = file.New(file.Params{
		Dir: c.Catalog.Dir, Globs: c.Catalog.Files, Forbidden: []netip.Prefix{c.VIPCIDR, c.VIPCIDR6}, Log: d.log,
		Changed: func() {
			if d.loop != nil {
				d.loop.CatalogChanged()
			}
		},
	})
	if err := d.catalog.Load(context.Background()); err != nil {
		return err
	}
	services, _ := d.catalog.Snapshot()
	for _, ns := range c.UnknownNamespaces(services) {
		d.log.Warn("a client may use a namespace that no catalog file has", "namespace", ns)
	}
	return nil
}

// takeLock makes sure that nobody else writes this state or these pins.
func (d *daemon) takeLock(c *Config) error {
	for _, lock := range []func(*Config) (*os.File, error){lockState, lockPins} {
		f, err := lock(c)
		if err != nil {
			return err
		}
		d.locks = append(d.locks, f)
	}
	return nil
}

// openMetrics takes the port now: a start that fails must fail before it
// changes what the kernel does.
func (d *daemon) openMetrics(c *Config) (err error) {
	d.scrapes, err = metrics.Listen(context.Background(), c.Metrics.Listen)
	return err
}

func (d *daemon) openKernel(c *Config) error {
	root, err := task.CgroupRoot()
	if err != nil {
		return err
	}
	attach := c.Cgroup
	if attach == cgroupAuto {
		attach = root
	}
	d.datapath, err = datapath.Open(datapath.Params{
		Log: d.log.With("component", "datapath"), BPFFS: c.BPFFS, Cgroup: attach,
		VIP4: c.VIPCIDR, VIP6: c.VIPCIDR6, CountCallers: c.CloudWatch != nil,
		MaxConnections: uint32(c.Limits.MaxConnections), MaxEndpoints: uint32(c.Limits.MaxEndpoints),
		MaxServices: uint32(c.Limits.MaxServices), MaxSlots: uint32(c.Limits.MaxSlots),
	})
	return err
}

func (d *daemon) openTasks(c *Config) error {
	root, err := task.CgroupRoot()
	if err != nil {
		return err
	}
	if d.own, err = netns.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	d.cookie = sync.OnceValues(func() (uint64, error) { return d.datapath.NetnsCookie(nil) })
	if _, err := d.cookie(); err != nil {
		return err
	}
	d.tasks.static = task.NewStatic(task.Params{CgroupRoot: root, Cookie: d.datapath.NetnsCookie, ResolvConf: dns.ReadResolvConf})
	return d.tasks.static.Set(clientsOf(c))
}

func clientsOf(c *Config) []task.Client {
	out := make([]task.Client, len(c.Clients))
	for i, cl := range c.Clients {
		out[i] = task.Client{
			Name: cl.Name, NetnsPath: cl.NetnsPath(), Cgroup: cl.Cgroup, Namespaces: cl.Namespaces,
			HostsFile: cl.HostsFile, ResolvConf: cl.ResolvConf,
		}
	}
	return out
}

func (d *daemon) openPlan(c *Config) error {
	memory, err := readJournal(c.StateDir)
	if err != nil {
		return fmt.Errorf("read plan journal: %w", err)
	}
	room := d.datapath.Room() // of adopted maps, whatever the config says
	planner, err := plan.New(plan.Config{
		VIP4: c.VIPCIDR, VIP6: c.VIPCIDR6, Zone: d.zone.id(), MaxEndpoints: room.Endpoints,
		MaxServices: room.Services, MaxSlots: room.Slots / 2, // old and new stand side by side in a change
	}, memory)
	if err != nil {
		return fmt.Errorf("%s: %w (remove the file to start with an empty memory: VIPs that collide may then move)", journalPath(c.StateDir), err)
	}
	if d.journal, err = openJournal(c.StateDir, planner.Snapshot()); err != nil {
		return err
	}
	d.loop = reconcile.New(reconcile.Params{
		Log: d.log.With("component", "reconcile"), Planner: planner, Kernel: kernel{d.datapath, d}, Journal: d.journal,
		Catalog: d.listServices,
		Tasks:   d.plannedTasks,
		Publish: d.publish,
		Passed:  d.passes.Observe,
	})
	d.seats = reconcile.NewSeats(d.log.With("component", "tasks"), d.attach)
	d.ender = reconcile.NewTerminator(reconcile.Terminator{
		Log: d.log.With("component", "terminate"), Active: d.active, Terminate: d.terminate,
	})
	return nil
}

func (d *daemon) openRooms(c *Config) error {
	params := dns.Params{
		Log: d.log.With("component", "dns"), Redirect: d.redirect, PortFile: filepath.Join(c.StateDir, "dns-ports.json"),
		Refused: d.refusedName, HostsList: hostsList(c),
	}
	if d.registry != nil {
		params.Demand, params.Wait = d.demanded, d.awaitName
	}
	var err error
	if d.dns, err = dns.New(params); err != nil {
		return err
	}
	if err := d.openProxy(c.VIPCIDR); err != nil {
		return err
	}
	d.probes = metrics.NewProbeRecorder(health.Results(), d.loop.Desired)
	d.health = health.New(health.Params{
		Log: d.log.With("component", "health"), Report: d.loop.Verdicts, Caller: d.caller, Task: d.taskNamespace, Observe: d.probes.Observe,
	})
	return nil
}
