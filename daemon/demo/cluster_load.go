package demo

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

// curls is a run of requests from one client at a steady rate.
type curls struct {
	process  *process
	out      bytes.Buffer
	requests int
}

// curls begins requests to orders. More are further arguments of curl.
func (m *member) curls(requests, rate int, more ...string) (*curls, error) {
	l := &curls{requests: requests}
	args := append([]string{"-sS", "--rate", fmt.Sprint(rate, "/s"), "-w", "%{http_code} %{time_total}\\n"}, more...)
	var err error
	l.process, err = m.client.run(&l.out, "curl", append(args, fmt.Sprintf("http://orders/?[1-%d]", requests))...)
	return l, err
}

func (l *curls) kill(ctx context.Context) {
	l.process.stop(context.WithoutCancel(ctx), syscall.SIGKILL)
}

// end waits for the last answer, and says who answered, and how long the
// slowest took, in seconds. Anything but a 200 is an error.
func (l *curls) end(ctx context.Context) (by map[string]int, slowest float64, err error) {
	select {
	case <-l.process.done:
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	case <-time.After(25 * time.Second):
		return nil, 0, fmt.Errorf("%d requests did not end in 25 s", l.requests)
	}
	by = map[string]int{}
	failed, total := 0, 0
	for line := range strings.Lines(l.out.String()) {
		first, second, _ := strings.Cut(strings.TrimSpace(line), " ")
		if took, err := strconv.ParseFloat(second, 64); err == nil && len(first) == 3 {
			slowest = max(slowest, took)
			if first != "200" {
				failed++
			}
			continue
		}
		by[first]++
		total++
	}
	if failed > 0 || total != l.requests {
		err = fmt.Errorf("%d of %d were answered, %d failed: %v", total, l.requests, failed, by)
	}
	return by, slowest, err
}

// replace takes the server orders-a out as a deployment does: it is marked as
// draining, and ends when nobody sends it anything any more.
func (c *cluster) replace(ctx context.Context) error {
	a, b := c.nodes[0], c.nodes[1]
	old, fresh := c.servers["orders-a"], c.servers["orders-a2"]
	const requests, rate = 400, 50
	loads := map[string]*curls{}
	for method, more := range map[string][]string{"GET": nil, "POST": {"-d", "x"}} {
		l, err := b.curls(requests, rate, more...)
		if err != nil {
			return err
		}
		defer l.kill(ctx)
		loads[method] = l
	}
	listed := fmt.Sprintf("{address: %s, port: %d", old.addr, apiPort)
	if err := a.publish(strings.Replace(shared("orders", httpOrders, old, fresh), listed, listed+", draining: true", 1)); err != nil {
		return err
	}
	if err := c.reachAll(ctx, 10*time.Second, c.nodes, "orders", "orders-a2", "orders-c"); err != nil {
		return err
	}
	c.ends["orders-a"].Close()
	if err := a.publish(shared("orders", httpOrders, fresh)); err != nil {
		return err
	}
	for method, l := range loads {
		by, slowest, err := l.end(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		if by["orders-a"] == 0 || by["orders-a2"] == 0 {
			return fmt.Errorf("%s: %v answered, want the old server and the new one", method, by)
		}
		c.Say("%d %ss, none failed, the slowest took %.2f s; answered by %v", requests, method, slowest, by)
	}
	return nil
}

func (c *cluster) kill(ctx context.Context) error {
	b, victim := c.nodes[1], c.nodes[2]
	const requests, rate = 500, 100
	load, err := b.curls(requests, rate)
	if err != nil {
		return err
	}
	defer load.kill(ctx)
	if err := report.Pause(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	if err := c.die(ctx, victim, c.servers["orders-c"]); err != nil {
		return err
	}
	by, slowest, err := load.end(ctx)
	switch {
	case err != nil:
		return err
	case slowest > 3:
		return fmt.Errorf("a GET took %.2f s, want less than 3", slowest)
	case by["orders-c"] == 0:
		return fmt.Errorf("node c never answered, so its end shows nothing")
	}
	c.Say("%d requests, none failed, the slowest took %.2f s; answered by %v", requests, slowest, by)
	c.Say("its instances go when ECS says that the container instance has gone, 15 to 20 minutes later")
	return nil
}
