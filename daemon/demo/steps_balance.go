package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

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
	d.say("%d requests of curl, each with a connection of its own", requests)
	d.say("  server  weight  expected  got")
	var wrong []string
	total := 0
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		expected := requests * weights[name] / 5
		d.say("  %-7s %6.0f  %8.0f  %3d", name, weights[name], expected, got[name])
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
	return until(ctx, 5*time.Second, func() error {
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
	all, err := d.web.underLoad(ctx, d.vip+":80", workers, func(loadStats) error {
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
		killed = time.Now()
		d.serve.nginx["b"].stop(ctx, syscall.SIGKILL)
		if err := pause(ctx, bound); err != nil {
			return err
		}
		settled, _, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
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
		d.say("kill -9 nginx b: no connect of %d failed", all.OK)
	} else {
		d.say("kill -9 nginx b: %d of %d connects failed, the last one %d ms after the kill", all.Failed, all.OK+all.Failed, all.LastFailure.Sub(killed).Milliseconds())
	}
	d.say("the second from %s on: %d connections, %d failed, by %s", bound, quiet.OK, quiet.Failed, counts(nonZero(quiet.ByServer)))
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
			d.say("connectd endpoints says: %s %s, %s", e.Address, e.State, e.Reason)
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
	err := until(ctx, 5*time.Second, func() error {
		r, err := d.web.ask(ctx, request{Op: "get", Target: d.vip + ":80"})
		if err == nil && firstWord(r.Text) != server {
			err = errors.New("others answer")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("nginx %s is not used again: %w", server, err)
	}
	d.say("nginx %s is used again, %d ms after it became active", server, time.Since(started).Milliseconds())
	return nil
}

func nonZero(m map[string]int) map[string]int {
	out := maps.Clone(m)
	maps.DeleteFunc(out, func(_ string, n int) bool { return n == 0 })
	return out
}

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
	d.say("%d connections are open, %s", connections, counts(byServer(held[mine:])))
	told := time.Now()
	d.serve.api["a"].sick.Store(true)
	if err := d.waitStates(ctx, "prod/api", "unhealthy active"); err != nil {
		return err
	}
	d.say("api a was told to fail: unhealthy after %d ms", time.Since(told).Milliseconds())
	ended, err := d.waitEnded(ctx, mine, "a", 3*time.Second)
	if err != nil {
		return err
	}
	d.say("its %d connections were ended at once; those to b go on", ended)
	got := map[string]int{}
	for range 20 {
		r, err := d.web.ask(ctx, request{Op: "get", Target: "api:80"})
		if err != nil {
			return err
		}
		got[firstWord(r.Text)]++
	}
	d.say("20 new connections: %s", counts(got))
	if got["b"] != 20 {
		return errors.New("new connections still go to a")
	}
	d.serve.api["a"].sick.Store(false)
	if err := d.waitStates(ctx, "prod/api", "active active"); err != nil {
		return err
	}
	d.say("api a was told to be well: active again")
	return nil
}

// hold makes the long-lived process keep connections open.
func (d *demo) hold(ctx context.Context, target string, count int) error {
	_, err := d.web.ask(ctx, request{Op: "hold", Target: target, Count: count})
	d.held += count
	return err
}

// waitEnded waits until exactly the connections to a server, from index from
// on, have ended, and returns how many.
func (d *demo) waitEnded(ctx context.Context, from int, server string, limit time.Duration) (ended int, err error) {
	err = until(ctx, limit, func() error {
		_, held, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		ended = 0
		for _, h := range held[from:] {
			if h.Server == server && h.Ended.IsZero() {
				return fmt.Errorf("a connection to %s goes on", server)
			}
			if h.Server == server {
				ended++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	d.held -= ended
	d.terminated += ended
	return ended, d.heldGoOn(ctx)
}

// heldGoOn checks that every connection that should live answers still.
func (d *demo) heldGoOn(ctx context.Context) error {
	_, before, err := d.web.stats(ctx)
	if err != nil {
		return err
	}
	return until(ctx, 2*time.Second, func() error {
		_, held, err := d.web.stats(ctx)
		if err != nil {
			return err
		}
		live := 0
		for i, h := range held {
			if h.Ended.IsZero() {
				live++
				if h.Requests == before[i].Requests {
					return fmt.Errorf("a connection to %s is stuck", h.Server)
				}
			}
		}
		if live != d.held {
			return fmt.Errorf("%d of the connections to be kept are open, want %d: %s", live, d.held, firstError(held))
		}
		return nil
	})
}

func byServer(held []heldStats) map[string]int {
	m := map[string]int{}
	for _, h := range held {
		m[h.Server]++
	}
	return m
}

func firstError(held []heldStats) string {
	var parts []string
	for _, h := range held {
		if h.Error != "" {
			parts = append(parts, h.Server+": "+h.Error)
		}
	}
	return strings.Join(parts, "; ")
}

func addrPort(p *place, port uint16) string { return netip.AddrPortFrom(p.addr, port).String() }
