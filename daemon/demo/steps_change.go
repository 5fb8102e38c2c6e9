package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"connectd/daemon/demo/report"
)

// drainDeadline is what the catalog says of orders.
const drainDeadline = 2 * time.Second

// failCheck makes a server fail its health check while it goes on serving.
func (d *demo) failCheck(ctx context.Context) error {
	const connections = 6
	if err := d.waitStates(ctx, "prod/api", "active active"); err != nil {
		return err
	}
	if err := d.hold(ctx, "api:80", connections); err != nil {
		return err
	}
	_, held, err := d.web.stats(ctx)
	if err != nil {
		return err
	}
	mine := len(held) - connections // those before are another step's
	d.Say("%d connections are open, %s", connections, counts(byServer(held[mine:])))
	told := time.Now()
	d.serve.api["a"].sick.Store(true)
	if err := d.waitStates(ctx, "prod/api", "unhealthy active"); err != nil {
		return err
	}
	d.Say("api a was told to fail: unhealthy after %d ms", time.Since(told).Milliseconds())
	ended, err := d.waitEnded(ctx, mine, "a", 3*time.Second)
	if err != nil {
		return err
	}
	d.Say("its %d connections were ended at once; those to b go on", ended)
	got := map[string]int{}
	for range 20 {
		r, err := d.web.ask(ctx, request{Op: "get", Target: "api:80"})
		if err != nil {
			return err
		}
		got[firstWord(r.Text)]++
	}
	d.Say("20 new connections: %s", counts(got))
	if got["b"] != 20 {
		return errors.New("new connections still go to a")
	}
	d.serve.api["a"].sick.Store(false)
	if err := d.waitStates(ctx, "prod/api", "active active"); err != nil {
		return err
	}
	d.Say("api a was told to be well: active again")
	return nil
}

func (d *demo) drain(ctx context.Context) error {
	const connections = 10
	if err := d.hold(ctx, d.vip+":80", connections); err != nil {
		return err
	}
	_, held, err := d.web.stats(ctx)
	if err != nil {
		return err
	}
	mine := len(held) - connections
	d.Say("%d connections are open: %s", connections, counts(byServer(held[mine:])))
	if byServer(held[mine:])["a"] == 0 {
		return errors.New("none of them to a")
	}
	address := netip.AddrPortFrom(d.world.orders["a"].addr, ordersPort).String()
	var begun time.Time
	var window loadStats
	all, err := d.web.underLoad(ctx, d.vip+":80", workers, func() error {
		begun = time.Now()
		text, err := d.daemon.connectd(ctx, "drain", "prod/orders", address)
		if err != nil {
			return err
		}
		d.Say("connectd drain prod/orders %s: %s", address, strings.TrimSpace(text))
		// Requests that had their connection before are through by then.
		if err := report.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		from, _, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		if err := report.Pause(ctx, 800*time.Millisecond); err != nil {
			return err
		}
		to, _, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		window = to.since(from)
		if err := d.heldGoOn(ctx); err != nil {
			return fmt.Errorf("before the deadline: %w", err)
		}
		if time.Since(begun) > drainDeadline {
			return errors.New("this machine is too slow to look before the deadline")
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.Say("in 0.8 s then: %d new connections, %s; the old ones go on", window.OK, counts(nonZero(window.ByServer)))
	if window.ByServer["a"] > 0 || window.OK < 50 || all.Failed > 0 {
		return fmt.Errorf("%d new connections to a, %d failed: %s", window.ByServer["a"], all.Failed, all.LastError)
	}
	if err := d.deadline(ctx, mine, begun); err != nil {
		return err
	}
	if _, err := d.daemon.connectd(ctx, "undrain", "prod/orders", address); err != nil {
		return err
	}
	return d.usedAgain(ctx, "a")
}

// deadline waits for the end of the connections that are drained.
func (d *demo) deadline(ctx context.Context, mine int, begun time.Time) error {
	ended, err := d.waitEnded(ctx, mine, "a", 5*time.Second)
	if err != nil {
		return err
	}
	_, held, err := d.web.stats(ctx)
	if err != nil {
		return err
	}
	for _, h := range held[mine:] {
		if h.Server != "a" {
			continue
		}
		after := h.Ended.Sub(begun)
		d.Say("a connection to a ended %.1f s after the drain began, deadline %s: %s", after.Seconds(), drainDeadline, h.Error)
		if after < drainDeadline-10*time.Millisecond {
			return errors.New("it ended before the deadline")
		}
	}
	d.Say("%d ended, the %d others go on", ended, d.held)
	return nil
}

// newService adds a catalog file while the client runs.
func (d *demo) newService(ctx context.Context) error {
	if _, err := d.web.resolve(ctx, "late"); err == nil {
		return errors.New("late resolves before it exists")
	}
	d.Say("process %d: late does not resolve", d.web.process.pid())
	written := time.Now()
	err := d.daemon.write("catalog-late.yaml", fmt.Sprintf(`namespace: prod
services:
  - discoveryName: late
    clientAliases: [{dnsName: late, port: 80}]
    endpoints: [{address: %s, port: 8080}]
`, d.world.api["a"].addr))
	if err != nil {
		return err
	}
	var r reply
	err = report.Until(ctx, 5*time.Second, func() (err error) {
		r, err = d.web.ask(ctx, request{Op: "get", Target: "late:80"})
		return err
	})
	if err != nil {
		return err
	}
	d.Say("a catalog file was added: %d ms later the same process %d has an answer of late, by way of %s: %s",
		time.Since(written).Milliseconds(), d.web.process.pid(), r.Peer, strings.TrimSpace(r.Text))
	return nil
}
