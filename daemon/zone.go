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
	"time"

	"connectd/pkg/control"
	"connectd/pkg/instance"
	"connectd/pkg/settings"
	"connectd/pkg/wholefile"
)

const (
	// zoneAuto: the zone is the EC2 instance's.
	zoneAuto = "auto"
	// The instance's metadata are asked for the zone after the one pause and, as
	// long as nobody answers, twice as long up to the other.
	zonePause    = 5 * time.Second
	maxZonePause = time.Minute
)

// ownZone is the availability zone that the node is in, as far as is known.
type ownZone struct {
	mu    sync.Mutex
	zone  zone
	why   string // why there is none though it was looked for; "": there is, or that is not known yet
	asked bool   // the log has said that nobody answers
}

// zone is an availability zone: its id, and its name in this account, which may
// be unknown.
type zone struct{ id, name string }

func (z *ownZone) now() zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.zone
}

// id is "" where there is no zone to prefer.
func (z *ownZone) id() string { return z.now().id }

// status is what status says of a zone that was not found.
func (z *ownZone) status() []control.Problem {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.why == "" || z.zone.id != "" {
		return nil
	}
	return []control.Problem{{Name: "noZone", Message: "zone: auto finds no zone, so none is preferred: " + z.why, Fix: noZoneFix}}
}

const noZoneFix = "name the zone's id in the config, or leave zone out; in a container the instance's hop limit must be 2"

func zonePath(stateDir string) string { return filepath.Join(stateDir, "zone") }

// readZone returns what an earlier daemon has found; no zone is no error.
func readZone(stateDir string) (zone, error) {
	text, err := os.ReadFile(zonePath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return zone{}, nil
	}
	if err != nil {
		return zone{}, fmt.Errorf("read the zone found earlier: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 || len(fields) > 2 || settings.CheckZone(fields[0]) != "" {
		return zone{}, fmt.Errorf("read the zone found earlier: %s names no zone", zonePath(stateDir))
	}
	return zone{fields[0], strings.Join(fields[1:], "")}, nil
}

func writeZone(stateDir string, z zone) error {
	if err := wholefile.Write(zonePath(stateDir), []byte(strings.TrimSpace(z.id+" "+z.name)+"\n")); err != nil {
		return fmt.Errorf("keep the zone: %w", err)
	}
	return nil
}

// openInstance makes what asks the instance, and takes up the zone of the config
// or that of an earlier daemon. It asks nothing.
func (d *daemon) openInstance(c *Config) error {
	d.instance = instance.New(instance.Params{
		Log: d.log.With("component", "instance"), Changed: d.instanceChanged, Draining: d.draining.Load,
	})
	if c.Zone != zoneAuto {
		d.zone.zone.id = c.Zone
		return nil
	}
	z, err := readZone(c.StateDir)
	if err != nil {
		d.log.Warn("the zone is looked for as on a first start", "error", err)
	}
	d.zone.zone = z
	return nil
}

// findZone asks the instance for its zone until that is known.
func (d *daemon) findZone(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := zonePause; ; pause = min(2*pause, maxZonePause) {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		found, err := instanceZone(ctx, d.instance)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			d.moveTo(ctx, found)
			return nil
		}
		d.missZone(err)
		timer.Reset(pause)
	}
}

// instanceZone asks an instance; one without a zone is an error too.
func instanceZone(ctx context.Context, i *instance.Watcher) (zone, error) {
	who, err := i.Identity(ctx)
	if err != nil {
		return zone{}, err
	}
	if wrong := settings.CheckZone(who.ZoneID); wrong != "" {
		return zone{}, fmt.Errorf("get the instance's zone: the id %q %s", who.ZoneID, wrong)
	}
	return zone{who.ZoneID, who.Zone}, nil
}

// missZone says once that nobody knows the zone. One that is known from an
// earlier start goes on.
func (d *daemon) missZone(err error) {
	z := &d.zone
	z.mu.Lock()
	kept, told := z.zone.id, z.asked
	z.why, z.asked = err.Error(), true
	z.mu.Unlock()
	switch {
	case told:
	case kept != "":
		d.log.Warn("the instance does not say in which zone it is: going on with the one it said earlier", "zone", kept, "error", err)
	default:
		d.log.Warn("zone: auto finds no zone, none is preferred: not on EC2, or its metadata are out of reach", "error", err)
	}
}

// moveTo has the node in a zone: what is planned prefers it, and what is served
// here says so.
func (d *daemon) moveTo(ctx context.Context, found zone) {
	z := &d.zone
	z.mu.Lock()
	before := z.zone
	z.zone, z.why = found, ""
	z.mu.Unlock()
	if d.registry != nil {
		d.registry.SetZone(found.name, found.id)
	}
	dir := d.config.Load().StateDir
	if kept, _ := readZone(dir); kept != found {
		if err := writeZone(dir, found); err != nil {
			d.log.Warn("a start without the instance's metadata will not know its zone", "error", err)
		}
	}
	if before == found {
		return
	}
	d.log.Info("the instance says in which zone it is", "zone", found.id, "name", found.name, "before", before.id)
	if d.tasks.node != nil {
		d.tasks.node.SetZone(found.id)
	}
	if err := d.loop.SetZone(ctx, found.id); err != nil && ctx.Err() == nil {
		d.log.Warn("prefer the zone, tried again with the next pass", "error", err)
	}
}

// zone says what zone: auto leads to here.
func (x *examination) zone(ctx context.Context, c *Config) {
	if c.Zone != zoneAuto {
		return
	}
	found, err := instanceZone(ctx, instance.New(instance.Params{}))
	kept, _ := readZone(c.StateDir)
	switch {
	case err == nil:
		x.add("zone", control.SeverityOK, "the instance is in "+found.id, "")
	case kept.id != "":
		x.add("zone", control.SeverityOK, fmt.Sprintf("the instance said earlier that it is in %s, now it does not answer: %s", kept.id, err), "")
	default:
		x.add("zone", control.SeverityWarn, "none is preferred: "+err.Error(), noZoneFix)
	}
}
