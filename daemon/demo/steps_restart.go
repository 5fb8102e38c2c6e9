package demo

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

func (d *demo) restartKilled(ctx context.Context) error  { return d.restart(ctx, syscall.SIGKILL) }
func (d *demo) restartStopped(ctx context.Context) error { return d.restart(ctx, syscall.SIGTERM) }

// restart ends the daemon, looks at the world without it, and starts it again,
// all under load and with connections open.
func (d *demo) restart(ctx context.Context, sig syscall.Signal) error {
	opened, err := d.opened(ctx)
	if err != nil {
		return err
	}
	load, err := d.web.underLoad(ctx, d.vip+":80", workers, func() error {
		if err := report.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		err := d.daemon.stop(ctx, sig)
		if sig == syscall.SIGTERM && err != nil {
			return fmt.Errorf("the daemon: %w", err)
		}
		if err := d.without(ctx); err != nil {
			return fmt.Errorf("while the daemon is away: %w", err)
		}
		started := time.Now()
		if err := d.daemon.start(ctx); err != nil {
			return err
		}
		d.Say("started again: pid %d, ready after %d ms", d.daemon.process.pid(), time.Since(started).Milliseconds())
		return report.Pause(ctx, 500*time.Millisecond)
	})
	if err != nil {
		return err
	}
	d.Say("%d new connections meanwhile, %d failed: %s", load.OK, load.Failed, counts(load.ByServer))
	if load.Failed > 0 || load.OK < 200 {
		return fmt.Errorf("%d connections failed: %s", load.Failed, load.LastError)
	}
	if err := d.heldGoOn(ctx); err != nil {
		return err
	}
	d.Say("%d open connections, none broken", d.held)
	vip, err := d.web.resolve(ctx, "orders")
	if err != nil {
		return err
	}
	if vip.String() != d.vip {
		return fmt.Errorf("orders was %s and is %s", d.vip, vip)
	}
	now, err := d.opened(ctx)
	if err != nil {
		return err
	}
	d.Say("orders is %s as before; connections counted: %.0f, before %.0f", vip, now, opened)
	if now < opened+float64(load.OK) {
		return errors.New("the kernel's counters did not go on")
	}
	return nil
}

// without looks at the world while no daemon runs.
func (d *demo) without(ctx context.Context) error {
	d.Say("the daemon is away; connections go on through the kernel")
	if err := d.lookUp(ctx, d.world.web, "getent", lookups[0].argv, outsideName, outsideAddr.String()); err != nil {
		return err
	}
	if err := d.lookUp(ctx, d.world.cron, "getent, from the hosts file", lookups[0].argv, "orders", d.vip); err != nil {
		return err
	}
	return report.Pause(ctx, 500*time.Millisecond)
}
