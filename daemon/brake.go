package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/dns"
	"connectd/pkg/lb"
)

// brake takes connectd off the node by command: no task is planned, so that
// nothing of connectd meets one, while the daemon goes on.
type brake struct {
	one      sync.Mutex                // held while it is put on or taken off
	since    atomic.Pointer[time.Time] // nil: connectd is on
	withheld atomic.Bool               // tasks are not planned
}

func brakePath(stateDir string) string { return filepath.Join(stateDir, "off") }

// readBrake returns since when connectd is off, the zero time when it is on.
func readBrake(stateDir string) (time.Time, error) {
	b, err := os.ReadFile(brakePath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read whether connectd is off: %w", err)
	}
	since, err := time.Parse(time.RFC3339, strings.TrimSpace(string(b)))
	if err != nil || since.IsZero() { // made by hand: that it is there is clear enough
		return time.Unix(1, 0), nil
	}
	return since, nil
}

// writeBrake is synced: a machine that goes down must not come back on.
func writeBrake(stateDir string, since time.Time) error {
	next := brakePath(stateDir) + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, since.UTC().Format(time.RFC3339))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, brakePath(stateDir))
}

// openBrake takes up what was said to an earlier daemon, which may have died
// before all was put back.
func (d *daemon) openBrake(c *Config) error {
	since, err := readBrake(c.StateDir)
	if err != nil || since.IsZero() {
		return err
	}
	d.brake.since.Store(&since)
	d.brake.withheld.Store(true)
	d.log.Warn("connectd is OFF on this node, by command: no task is served; connectd on ends it", "since", since)
	for _, t := range d.localTasks() {
		for _, file := range t.HostsFiles {
			if err := dns.WriteHosts(file, nil); err != nil {
				d.log.Error("take names out of hosts file", "task", t.Name, "error", err)
			}
		}
	}
	return nil
}

// localTasks are the tasks of this node, served or not.
func (d *daemon) localTasks() []lb.Task { return d.tasks.Tasks() }

// plannedTasks are those that are to be served.
func (d *daemon) plannedTasks() []lb.Task {
	if d.brake.withheld.Load() {
		return nil
	}
	return d.localTasks()
}

// offSince is the zero time when connectd is on.
func (d *daemon) offSince() time.Time {
	if since := d.brake.since.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// setOff puts the brake on or takes it off, and returns when that is in force.
// When ctx ends first it is an error, and goes on by itself.
func (d *daemon) setOff(ctx context.Context, off bool) (control.Brake, error) {
	d.brake.one.Lock()
	defer d.brake.one.Unlock()
	var err error
	switch was := !d.offSince().IsZero(); {
	case off && !was:
		err = d.putOff()
	case !off && was:
		err = d.putOn()
	}
	if err != nil {
		return control.Brake{}, err
	}
	d.loop.TasksChanged()
	err = d.loop.Settle(ctx)
	if err == nil {
		err = d.seats.Settle(ctx)
	}
	if off {
		d.proxy.Back() // for who is attached when it is on again
	}
	return control.Brake{Off: d.offSince(), Tasks: len(d.localTasks())}, err
}

// putOff hands names and requests back before tasks are forgotten: who got an
// address may use it for as long as the answer said, and requests finish as
// they do at a stop.
func (d *daemon) putOff() error {
	since := time.Now()
	if err := writeBrake(d.config.Load().StateDir, since); err != nil {
		return fmt.Errorf("write that connectd is off: %w", err)
	}
	d.brake.since.Store(&since)
	d.log.Warn("connectd goes OFF on this node, by command: names go back to the tasks' own resolvers, connections go on")
	d.events.Add(control.Event{Kind: control.EventOff, Reason: "by command"})
	d.dns.Withdraw(true)
	d.dns.Away()
	forgotten := time.NewTimer(dns.AnswerTTL)
	defer forgotten.Stop()
	d.proxy.Away()
	<-forgotten.C
	d.brake.withheld.Store(true)
	return nil
}

func (d *daemon) putOn() error {
	if err := os.Remove(brakePath(d.config.Load().StateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write that connectd is on: %w", err)
	}
	d.brake.since.Store(nil)
	d.brake.withheld.Store(false)
	d.dns.Withdraw(false)
	d.log.Warn("connectd is on again on this node, by command")
	d.events.Add(control.Event{Kind: control.EventOn, Reason: "by command"})
	return nil
}

// wait returns when nobody is at the brake any more.
func (b *brake) wait() {
	b.one.Lock()
	defer b.one.Unlock()
}
