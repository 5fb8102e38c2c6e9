// Package daemon is the composition root: it knows every part, wires them and
// decides nothing. Run is the order of start and stop; "what calls what" is in
// this file, and in attach.go what one part asks of another.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"connectd/pkg/catalog"
	"connectd/pkg/catalog/cloudmap"
	"connectd/pkg/catalog/file"
	"connectd/pkg/control"
	"connectd/pkg/datapath"
	"connectd/pkg/dns"
	"connectd/pkg/ecsapi"
	"connectd/pkg/health"
	"connectd/pkg/instance"
	"connectd/pkg/metrics"
	"connectd/pkg/metrics/cloudwatch"
	"connectd/pkg/netns"
	"connectd/pkg/plan"
	"connectd/pkg/proxy"
	"connectd/pkg/proxy/accesslog"
	"connectd/pkg/reconcile"
	"connectd/pkg/task/docker"
)

const (
	// refreshInterval is how often static clients are looked at: their
	// namespaces and resolv.conf files give no event.
	refreshInterval = time.Second
	sweepInterval   = time.Minute
	// startTimeout is how long a start may take to its first plan in the
	// kernel before it is said to hang.
	startTimeout = time.Minute
)

// daemon is every part, built by build and run by run.
type daemon struct {
	log        *slog.Logger
	configPath string
	config     atomic.Pointer[Config]
	started    time.Time
	reload     reloadState

	locks             []*os.File
	scrapes           net.Listener
	control           *control.Server
	journal           *journalFile
	datapath          *datapath.Datapath
	catalog           *file.Source
	tasks             residents
	docker            *docker.Watcher       // nil: ECS is not looked at
	ecs               *ecsapi.Cache         // nil: the same
	registry          *cloudmap.Source      // nil: services are not shared
	cloudWatch        *cloudwatch.Publisher // nil: nothing goes there
	lookups           awsCalls
	serveError        string // what countAccepted logged last; the loop's
	instance          *instance.Watcher
	zone              ownZone
	containerInstance atomic.Pointer[string] // its ARN, once the agent has said
	draining          atomic.Bool            // ECS drains the instance
	everRegistered    sync.Map               // names of tasks all of whose endpoints were in the registry
	offByAttribute    bool                   // the attribute connectd.off as it was last obeyed; followInstance's
	problems          taskProblems
	merged            merged
	loop              *reconcile.Loop
	seats             *reconcile.Seats
	ender             *reconcile.Terminator
	dns               *dns.Responder
	proxy             *proxy.Proxy
	access            *accesslog.Logs
	health            *health.Prober
	probes            *metrics.ProbeRecorder
	passes            metrics.DurationRecorder
	ejected           metrics.EjectionRecorder
	ended             endedCounter
	changes           changeLog
	events            *eventLog
	vips              vipIndex
	known             knownTasks
	brake             brake
	directError       string // what readDirect logged last; the loop's
	live              liveBytes
	callers           callerLedger           // the CloudWatch publisher's
	own               *netns.Handle          // the node's own network namespace
	cookie            func() (uint64, error) // of it
	seated            sync.Map               // names of the tasks that have their sockets
	ready             atomic.Bool            // the first plan is in force and its tasks were tried
	notify            *notifier
	hup               chan os.Signal // SIGHUP, which would end a process that does not listen yet
}

// Run runs the daemon until ctx ends. The first error of the start is
// returned, with everything undone but the pins of an earlier daemon.
func Run(ctx context.Context, configPath string) error {
	if err := enterHostCgroups(); err != nil {
		return err
	}
	n := startNotifier()
	defer n.close()
	d, err := build(configPath)
	if err != nil {
		return err
	}
	defer d.close()
	d.notify = n
	n.watch(d.log, d.alive, d.summary)
	return d.run(ctx)
}

// build opens everything and changes nothing that another process could see
// before the lock is held.
func build(configPath string) (*daemon, error) {
	config, err := LoadConfig(configPath)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(config.CheckHost(), mustSeeHost(config)); err != nil {
		return nil, err
	}
	d := &daemon{configPath: configPath, started: time.Now(), log: newLogger(config), events: newEventLog(),
		merged: merged{merger: catalog.NewMerger()}, hup: make(chan os.Signal, 1)}
	signal.Notify(d.hup, unix.SIGHUP)
	d.changes.log, d.changes.events = d.log.With("component", "plan"), d.events
	d.config.Store(config)
	limitMemory(config)
	d.reload.set(nil, nil)
	for _, step := range []func(*Config) error{
		d.openCatalog, d.takeLock, d.openMetrics, d.openKernel, d.openTasks, d.openInstance, d.openRegistry, d.openECS, d.openCloudWatch,
		d.openBrake, d.openPlan, d.openRooms, d.openControl,
	} {
		if err := step(config); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// publish hands a plan that the kernel holds to everybody else.
func (d *daemon) publish(p *plan.Desired) {
	d.readDirect(p)
	d.known.publish(p)
	d.vips.publish()
	d.changes.publish(p)
	d.offer(p)
	d.countAccepted(p)
	d.proxy.Publish(p)
	d.dns.Publish(p)
	d.health.SetTargets(p)
	d.ejected.Publish(p)
	d.ender.Publish(p)
	d.seats.Want(p.Tasks)
}

// run starts the parts, and stops them in the order that keeps applications
// working: new connections go direct first, then DNS is handed back, sockets go
// last.
func (d *daemon) run(ctx context.Context) error {
	parts, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g, gctx := errgroup.WithContext(parts)
	for _, part := range d.outside() {
		g.Go(func() error { return part(gctx) })
	}
	d.awaitDocker(ctx)
	for _, part := range []func(context.Context) error{
		d.loop.Run, d.seats.Run, d.ender.Run, d.health.Run, d.catalog.Run, d.strikes, d.oncePlanned(d.refusals), d.refresh,
		d.upkeep, d.followConfig, d.followInstance, d.pruneHosts, d.serveMetrics, d.control.Serve, d.becomeReady,
	} {
		g.Go(func() error { return part(gctx) })
	}
	select {
	case <-ctx.Done():
		d.log.Info("stopping: programs and maps stay, names go back to the tasks' own resolvers")
	case <-gctx.Done():
	}
	d.ready.Store(false)
	d.notify.stopping()
	d.proxy.Away() // names resolve as long as it takes
	d.dns.Away()
	cancel()
	defer d.brake.wait() // before what it works on is closed
	return g.Wait()
}

// outside are the parts that ask Docker and AWS, those that the config has. They
// begin first: who runs here should be known when the first plan is made.
func (d *daemon) outside() (parts []func(context.Context) error) {
	add := func(run func(context.Context) error) {
		parts = append(parts, func(ctx context.Context) error {
			err := run(ctx)
			if ctx.Err() != nil {
				return nil // some say what ended them, and it was we
			}
			return err
		})
	}
	if d.docker != nil {
		add(d.docker.Run)
		add(d.tasks.node.Run)
		add(d.ecs.Run)
	}
	if d.registry != nil {
		add(d.registry.Run)
	}
	if d.registry != nil || d.docker != nil {
		add(d.instance.Run)
	}
	if d.config.Load().Zone == zoneAuto {
		add(d.findZone)
	}
	if d.cloudWatch != nil {
		add(d.oncePlanned(d.cloudWatch.Run)) // what is counted by then is not sent
	}
	return parts
}

// oncePlanned runs a part when the first plan is in force, which says whose
// what the kernel has kept from an earlier daemon is.
func (d *daemon) oncePlanned(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-d.loop.InForce():
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *daemon) becomeReady(ctx context.Context) error {
	slow := time.AfterFunc(startTimeout, func() {
		d.log.Warn("still no plan in the kernel", "reconcile", d.loop.Status().Error)
	})
	defer slow.Stop()
	for _, done := range []<-chan struct{}{d.loop.InForce(), d.seats.Settled()} {
		select {
		case <-done:
		case <-ctx.Done():
			return nil
		}
	}
	d.ready.Store(true)
	d.notify.ready()
	p := d.loop.Desired()
	d.log.Info("ready", "services", len(p.Services), "tasks", len(p.Tasks), "took", time.Since(d.started).Round(time.Millisecond))
	return nil
}

func (d *daemon) strikes(ctx context.Context) error { return d.datapath.Events(ctx, d.struck) }

// refresh looks at static clients.
func (d *daemon) refresh(ctx context.Context) error {
	return every(ctx, refreshInterval, func() {
		if d.tasks.static.Refresh() {
			d.loop.TasksChanged()
		}
	})
}

func (d *daemon) upkeep(ctx context.Context) error {
	return every(ctx, sweepInterval, func() {
		d.noteUse()
		swept, err := d.datapath.Sweep(d.namespaces)
		if err != nil {
			d.log.Error("sweep connections", "error", err)
		}
		if swept > 0 {
			d.ended.swept.Add(uint64(swept))
			d.log.Warn("forgot connections whose end was missed", "connections", swept)
		}
	})
}

func every(ctx context.Context, interval time.Duration, fn func()) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			fn()
		}
	}
}

// close lets go of everything that build opened, whatever part of it.
func (d *daemon) close() error {
	var errs []error
	if d.hup != nil {
		signal.Stop(d.hup)
	}
	if d.control != nil {
		errs = append(errs, d.control.Close())
	}
	if d.scrapes != nil {
		d.scrapes.Close() // again, when it was served
	}
	if d.dns != nil {
		errs = append(errs, d.dns.Close())
	}
	if d.proxy != nil {
		errs = append(errs, d.proxy.Close())
	}
	if d.access != nil {
		errs = append(errs, d.access.Close())
	}
	if d.tasks.static != nil {
		d.tasks.static.Close()
	}
	errs = append(errs, d.own.Close())
	if d.datapath != nil {
		errs = append(errs, d.datapath.Close())
	}
	if d.journal != nil {
		errs = append(errs, d.journal.Close())
	}
	for _, f := range d.locks {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
