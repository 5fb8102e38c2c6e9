package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/control"
)

// workers make new connections in the loaded steps, 5 ms apart each.
const workers = 4

// counts is "a 80, b 80, c 240".
func counts(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, m[name]))
	}
	if parts == nil {
		return "nobody"
	}
	return strings.Join(parts, ", ")
}

func (d *demo) spread(ctx context.Context) error {
	const requests = 500
	text, err := d.world.web.output(ctx, "curl", "-sS", "-H", "Connection: close", fmt.Sprintf("http://orders/[1-%d]", requests))
	if err != nil {
		return err
	}
	got := map[string]int{}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			got[firstWord(line)]++
		}
	}
	weights := map[string]float64{"a": 1, "b": 1, "c": 3}
	d.Say("%d requests of curl, each with a connection of its own", requests)
	d.Say("  server  weight  expected  got")
	var wrong []string
	total := 0
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		expected := requests * weights[name] / 5
		d.Say("  %-7s %6.0f  %8.0f  %3d", name, weights[name], expected, got[name])
		total += got[name]
		if math.Abs(float64(got[name])-expected) > 0.05*requests {
			wrong = append(wrong, name)
		}
	}
	if total != requests || len(got) != len(weights) {
		return fmt.Errorf("%d answers, by %s", total, counts(got))
	}
	if wrong != nil {
		return fmt.Errorf("more than 5%% of all requests off: %s", strings.Join(wrong, ", "))
	}
	return nil
}

func (d *demo) endpoints(ctx context.Context, service string) ([]control.Endpoint, error) {
	return ask[[]control.Endpoint](ctx, d.daemon, "endpoints", service)
}

// waitStates waits until the endpoints of a service, by address, have these
// states.
func (d *demo) waitStates(ctx context.Context, service, want string) error {
	return report.Until(ctx, 5*time.Second, func() error {
		list, err := d.endpoints(ctx, service)
		if err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b control.Endpoint) int { return a.Address.Compare(b.Address) })
		var states []string
		for _, e := range list {
			states = append(states, e.State)
		}
		if got := strings.Join(states, " "); got != want {
			return fmt.Errorf("%s: endpoints are %s, want %s", service, got, want)
		}
		return nil
	})
}

// kill ends nginx b. Connects to it fail until the first health checks do, or
// until this client has failed often enough, whichever is first.
func (d *demo) kill(ctx context.Context) error {
	const bound = time.Second // of which the checks take 2 x 0.2 s
	var killed time.Time
	var quiet loadStats
	all, err := d.web.underLoad(ctx, d.vip+":80", workers, func() error {
		if err := report.Pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		killed = time.Now()
		d.serve.nginx["b"].stop(ctx, syscall.SIGKILL)
		if err := report.Pause(ctx, bound); err != nil {
			return err
		}
		settled, _, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		if err := report.Pause(ctx, time.Second); err != nil {
			return err
		}
		after, _, err := d.web.stats(ctx)
		quiet = after.since(settled)
		return err
	})
	if err != nil {
		return err
	}
	if all.Failed == 0 {
		d.Say("kill -9 nginx b: no connect of %d failed", all.OK)
	} else {
		d.Say("kill -9 nginx b: %d of %d connects failed, the last one %d ms after the kill", all.Failed, all.OK+all.Failed, all.LastFailure.Sub(killed).Milliseconds())
	}
	d.Say("the second from %s on: %d connections, %d failed, by %s", bound, quiet.OK, quiet.Failed, counts(nonZero(quiet.ByServer)))
	if quiet.Failed > 0 || quiet.ByServer["b"] > 0 || quiet.OK < 50 {
		return fmt.Errorf("nginx b is not avoided: %s", quiet.LastError)
	}
	if err := d.waitStates(ctx, "prod/orders", "active unhealthy active"); err != nil {
		return err
	}
	list, err := d.endpoints(ctx, "prod/orders")
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Address.Addr() == d.world.orders["b"].addr {
			d.Say("connectd endpoints says: %s %s, %s", e.Address, e.State, e.Reason)
		}
	}
	if err := d.serve.startNginx("b"); err != nil {
		return err
	}
	if err := d.waitStates(ctx, "prod/orders", "active active active"); err != nil {
		return err
	}
	return d.usedAgain(ctx, "b")
}

// usedAgain waits until a server of orders gets connections.
func (d *demo) usedAgain(ctx context.Context, server string) error {
	started := time.Now()
	err := report.Until(ctx, 5*time.Second, func() error {
		r, err := d.web.ask(ctx, request{Op: "get", Target: d.vip + ":80"})
		if err == nil && firstWord(r.Text) != server {
			err = errors.New("others answer")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("nginx %s is not used again: %w", server, err)
	}
	d.Say("nginx %s is used again, %d ms after it became active", server, time.Since(started).Milliseconds())
	return nil
}

func nonZero(m map[string]int) map[string]int {
	out := maps.Clone(m)
	maps.DeleteFunc(out, func(_ string, n int) bool { return n == 0 })
	return out
}
