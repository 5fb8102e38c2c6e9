package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"connectd/pkg/catalog/file"
	"connectd/pkg/metrics"
)

// reloadState is how the last reading of the config file went.
type reloadState struct {
	one sync.Mutex // held while a config is brought into force

	mu          sync.Mutex
	loaded      time.Time // when the config in use was read
	failed      time.Time // when the last reading failed; zero if it did not
	err         error
	needRestart []string
}

func (r *reloadState) set(err error, needRestart []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	if err != nil {
		r.failed = time.Now()
		return
	}
	r.loaded, r.failed, r.needRestart = time.Now(), time.Time{}, needRestart
}

func (r *reloadState) metrics() metrics.Reload {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := metrics.Reload{Last: r.loaded, LastSuccess: r.loaded, OK: r.err == nil}
	if r.err != nil {
		out.Last = r.failed
	}
	return out
}

// followConfig reads the config again when its file changes and on SIGHUP.
func (d *daemon) followConfig(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	watching := make(chan error, 1)
	go func() {
		watching <- file.Follow(ctx, d.configPath, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	for {
		select {
		case err := <-watching:
			return err
		case <-changed:
		case <-d.hup:
			d.log.Info("SIGHUP: reading config and catalog again, opening access logs anew")
			d.access.Reopen()
		}
		reloaded := d.notify.reloading()
		// What is wrong is logged and in the status; what was in use stays.
		_, _ = d.takeConfig()
		reloaded()
	}
}

// reloadConfig brings config and catalog into force and waits until the kernel
// has them. Its error is everything that is not in force.
func (d *daemon) reloadConfig(ctx context.Context) error {
	looked, err := d.takeConfig()
	if err != nil {
		return err
	}
	select {
	case <-looked:
	case <-ctx.Done():
		return fmt.Errorf("wait for the catalog to be read: %w", ctx.Err())
	}
	if err := d.loop.Settle(ctx); err != nil {
		return err
	}
	var errs []error
	_, files := d.catalog.Snapshot()
	for _, f := range files {
		errs = append(errs, f.Err)
	}
	problems := d.tasks.static.Problems()
	for _, client := range slices.Sorted(maps.Keys(problems)) {
		errs = append(errs, problems[client])
	}
	return errors.Join(errs...)
}

// takeConfig brings the parts of the config into force that can change while
// running, and has the catalog read, after which looked is closed. On an error
// nothing changes.
func (d *daemon) takeConfig() (looked <-chan struct{}, err error) {
	d.reload.one.Lock()
	defer d.reload.one.Unlock()
	running := d.config.Load()
	next, err := LoadConfig(d.configPath)
	if err == nil {
		err = next.CheckHost()
	}
	if err != nil {
		d.log.Error("config not in use, the one before stays", "error", err)
		d.reload.set(err, nil)
		return nil, err
	}
	restart := RestartNeeded(running, next)
	if len(restart) > 0 {
		d.log.Warn("config fields change with a restart only", "fields", restart)
	}
	if err := d.tasks.static.Set(clientsOf(next)); err != nil {
		d.log.Error("client not in use", "error", err)
	}
	if d.tasks.node != nil && next.ECS != nil {
		d.tasks.node.SetPolicy(joinPolicy(next.ECS))
	}
	d.loop.TasksChanged()
	looked = d.catalog.Reload(next.Catalog.Files)
	// Fields that need a restart keep their running values, so that the next
	// reload compares with what is really in force.
	inForce := *running
	inForce.Clients, inForce.Catalog = next.Clients, next.Catalog
	if inForce.ECS != nil && next.ECS != nil {
		policy := *next.ECS
		policy.Cluster, policy.Introspection, policy.Docker = inForce.ECS.Cluster, inForce.ECS.Introspection, inForce.ECS.Docker
		inForce.ECS = &policy
	}
	d.config.Store(&inForce)
	d.reload.set(nil, restart)
	d.log.Info("config in use", "clients", len(next.Clients))
	return looked, nil
}

func newLogger(c *Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
