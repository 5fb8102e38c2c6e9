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
	"connectd/pkg/wholefile"
)

// brake takes connectd off the node by command or by the container instance's
// attribute: no task is planned, so that nothing of connectd meets one, while the daemon goes on.
type brake struct {
	one      sync.Mutex                // held while it is put on or taken off
	since    atomic.Pointer[time.Time] // nil: connectd is on
	withheld atomic.Bool               // tasks are not planned
	// attribute: the container instance's attribute has put it on.
	attribute atomic.Bool
}

func brakePath(stateDir string) string { return filepath.Join(stateDir, "off") }

const byAttribute = "by-attribute" // in the brake's file, after the time

// readBrake returns since when connectd is off, the zero time when it is on,
// and whether the container instance's attribute has put it off.
func readBrake(stateDir string) (since time.Time, attribute bool, err error) {
	b, err := os.ReadFile(brakePath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read whether connectd is off: %w", err)
	}
	at, by, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	since, err = time.Parse(time.RFC3339, at)
	if err != nil || since.IsZero() { // made by hand: that it is there is clear enough
		return time.Unix(1, 0), false, nil
	}
	return since, by == byAttribute, nil
}

// writeBrake is synced: a machine that goes down must not come back on.
func writeBrake(stateDir string, since time.Time, attribute bool) error {
	text := since.UTC().Format(time.RFC3339)
	if attribute {
		text += " " + byAttribute
	}
	return wholefile.WriteSynced(brakePath(stateDir), []byte(text+"\n"))
}

// openBrake takes up what was said to an earlier daemon, which may have died
// before all was put back.
func (d *daemon) openBrake(c *Config) error {
	since, attribute, err := readBrake(c.StateDir)
	if err != nil || since.IsZero() {
		return err
	}
	d.brake.since.Store(&since)
	d.brake.attribute.Store(attribute)
	d.offByAttribute = attribute
	d.brake.withheld.Store(true)
	d.log.Warn("connectd is OFF on this node: no task is served; connectd on ends it", "since", since, "by", whoPulls(attribute))
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

// whoPulls says who has put the brake on, or takes it off.
func whoPulls(attribute bool) string {
	if attribute {
		return "by the instance attribute connectd.off"
	}
	return "by command"
}

// setOff is setBrake by command.
func (d *daemon) setOff(ctx context.Context, off bool) (control.Brake, error) {
	return d.setBrake(ctx, off, false)
}

// setBrake puts the brake on or takes it off, and returns when that is in
// force. When ctx ends first it is an error, and goes on by itself.
func (d *daemon) setBrake(ctx context.Context, off, attribute bool) (control.Brake, error) {
	d.brake.one.Lock()
	defer d.brake.one.Unlock()
	var err error
	switch was := !d.offSince().IsZero(); {
	case off && !was:
		err = d.putOff(attribute)
	case !off && was:
		err = d.putOn(attribute)
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
func (d *daemon) putOff(attribute bool) error {
	since := time.Now()
	if err := writeBrake(d.config.Load().StateDir, since, attribute); err != nil {
		return fmt.Errorf("write that connectd is off: %w", err)
	}
	d.brake.since.Store(&since)
	d.brake.attribute.Store(attribute)
	d.log.Warn("connectd goes OFF on this node: names go back to the tasks' own resolvers, connections go on", "by", whoPulls(attribute))
	d.events.Add(control.Event{Kind: control.EventOff, Reason: whoPulls(attribute)})
	d.dns.Withdraw(true)
	d.dns.Away()
	forgotten := time.NewTimer(dns.AnswerTTL)
	defer forgotten.Stop()
	d.proxy.Away()
	<-forgotten.C
	d.brake.withheld.Store(true)
	return nil
}

func (d *daemon) putOn(attribute bool) error {
	if err := os.Remove(brakePath(d.config.Load().StateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write that connectd is on: %w", err)
	}
	d.brake.since.Store(nil)
	d.brake.attribute.Store(false)
	d.brake.withheld.Store(false)
	d.dns.Withdraw(false)
	d.log.Warn("connectd is on again on this node", "by", whoPulls(attribute))
	d.events.Add(control.Event{Kind: control.EventOn, Reason: whoPulls(attribute)})
	return nil
}

// wait returns when nobody is at the brake any more.
func (b *brake) wait() {
	b.one.Lock()
	defer b.one.Unlock()
}
