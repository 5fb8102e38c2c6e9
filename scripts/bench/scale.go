package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"connectd/pkg/control"
)

const mib = 1 << 20

// measureStarts starts the daemon again and again, with nothing in the kernel
// and on disk and then over what that one left there, and leaves the last one
// running.
func measureStarts(ctx context.Context, r *rig, s scale) ([]row, error) {
	n := r.node
	if err := n.catalog(s.services); err != nil {
		return nil, err
	}
	var process, load, again []float64
	for range s.starts {
		if err := n.reset(); err != nil {
			return nil, err
		}
		first, err := n.start(ctx)
		if err != nil {
			return nil, err
		}
		if err := n.stop(); err != nil {
			return nil, err
		}
		second, err := n.start(ctx)
		if err != nil {
			return nil, err
		}
		process, load = append(process, milliseconds(first.process)), append(load, milliseconds(first.load))
		again = append(again, milliseconds(second.process))
	}
	what := fmt.Sprintf("%s in %d files", size(s.services), s.services/perFile)
	return []row{
		newRow(what+": first start, exec to ready", "ms", atMost(2000), process),
		newRow(what+": first start, reading files to the kernel", "ms", atMost(2000), load),
		newRow(what+": restart, exec to ready", "ms", reported, again),
	}, nil
}

// measureChanges adds and removes one endpoint again and again, and has a
// client see when its connects begin to succeed and to fail.
func measureChanges(ctx context.Context, r *rig, s scale) ([]row, error) {
	vip, err := r.node.vip(ctx, "probe")
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(vip, probePort).String()
	var took []float64
	for i := range s.changes {
		up := i%2 == 0
		if err := r.client.send(order{Await: &await{Address: at, Up: up}}); err != nil {
			return nil, err
		}
		renamed, err := r.node.write(fileName(0), fileContent(0, 8080, up))
		if err != nil {
			return nil, err
		}
		seen, err := r.client.wait()
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(seen.At.Sub(renamed)))
		// Out of step with every interval of the daemon.
		if err := pause(ctx, 100*time.Millisecond+time.Duration(i)*1700*time.Microsecond); err != nil {
			return nil, err
		}
	}
	return []row{newRow("one endpoint's change: from the rename of its file to the kernel", "ms", atMost(20), took)}, nil
}

func measureLarge(ctx context.Context, r *rig, s scale) ([]row, error) {
	return measureMemory(ctx, r.node, memoryBounds{s.services, s.rest, atMost(150), atMost(300)})
}

func measureSmall(ctx context.Context, r *rig, s scale) ([]row, error) {
	if err := errors.Join(r.node.reset(), r.node.catalog(perFile)); err != nil {
		return nil, err
	}
	if _, err := r.node.start(ctx); err != nil {
		return nil, err
	}
	return measureMemory(ctx, r.node, memoryBounds{perFile, s.rest, atMost(30), atMost(30)})
}

// memoryBounds says what a daemon with so many services may take.
type memoryBounds struct {
	services   int
	after      time.Duration // without a change it is at rest
	rest, peak bound
}

// measureMemory waits for the daemon to rest.
func measureMemory(ctx context.Context, n *node, m memoryBounds) ([]row, error) {
	if err := pause(ctx, m.after); err != nil {
		return nil, err
	}
	now, err := anonymous(n.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	highest := n.peak.Load()
	maps, err := n.mapBytes() // last: it costs memory
	if err != nil {
		return nil, err
	}
	one := func(what string, b bound, bytes float64) row {
		return newRow(size(m.services)+": "+what, "MiB", b, []float64{bytes / mib})
	}
	return []row{
		one("anonymous memory at rest", m.rest, float64(now)),
		one("anonymous memory, peak", m.peak, float64(highest)),
		one("kernel map memory", reported, maps),
	}, nil
}

// measureStorm replaces every endpoint of every file at once and has them all
// listed: the most memory that a daemon of this size is known to take.
func measureStorm(ctx context.Context, r *rig, s scale) ([]row, error) {
	for i := range s.services / perFile {
		if _, err := r.node.write(fileName(i), fileContent(i, 8081, false)); err != nil {
			return nil, err
		}
	}
	if _, err := r.node.control().Endpoints(ctx, control.EndpointFilter{}); err != nil {
		return nil, err
	}
	if err := pause(ctx, 5*time.Second); err != nil {
		return nil, err
	}
	what := size(s.services) + ": anonymous memory, peak when all files change at once and all is listed"
	return []row{newRow(what, "MiB", reported, []float64{float64(r.node.peak.Load()) / mib})}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func size(services int) string {
	if services >= 1000 {
		return fmt.Sprintf("%d,%03d services of 10", services/1000, services%1000)
	}
	return fmt.Sprintf("%d services of 10", services)
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }
