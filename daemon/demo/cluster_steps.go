package demo

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

func clusterSteps() []report.Step[*cluster] {
	return []report.Step[*cluster]{
		{Title: "make three nodes on a bridge, servers, clients, and an AWS", Run: (*cluster).make},
		{Title: "run a daemon on each node", Run: (*cluster).runDaemons},
		{Title: "what node a publishes is reached by name from b and c within 5 s", Run: (*cluster).publishFirst},
		{Title: "node c publishes more of the same service", Run: (*cluster).publishMore},
		{Title: "AWS goes away: b restarts, a changes, and all that was known goes on", Run: (*cluster).outage},
		{Title: "AWS is back: b and c catch up", Run: (*cluster).catchUp},
		{Title: "a server of node a is taken out under GETs and POSTs from b: none fails", Run: (*cluster).replace},
		{Title: "half of a service is made by ECS: 1 %, 50 %, 100 % and 0 % of it for connectd", Run: (*cluster).weights},
		{Title: "node c dies under load, without leave: no GET fails", Run: (*cluster).kill},
		{Title: "what the command line of node b shows", Run: (*cluster).commandLine},
	}
}

func (c *cluster) runDaemons(ctx context.Context) error {
	for _, m := range c.nodes {
		if err := m.begin(ctx); err != nil {
			return fmt.Errorf("node %s: %w", m.letter, err)
		}
	}
	c.Say("ready: %d nodes", len(c.nodes))
	return nil
}

// begin starts the daemon. One that is not ready may not know yet how to end
// in good order, so it is killed.
func (m *member) begin(ctx context.Context) error {
	err := m.start(ctx)
	if err != nil && m.process != nil {
		m.stop(context.WithoutCancel(ctx), syscall.SIGKILL) // its error says that it was killed
	}
	return err
}

const httpOrders = "    appProtocol: http\n"

// curl makes requests by name, a connection each, and counts who answered.
func (m *member) curl(ctx context.Context, name string, times int) (map[string]int, error) {
	out, err := m.client.output(ctx, "curl", "-sS", "--max-time", "5", "-H", "Connection: close", fmt.Sprintf("http://%s/?[1-%d]", name, times))
	if err != nil {
		return nil, err
	}
	by := map[string]int{}
	for line := range strings.Lines(out) {
		server, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		by[server]++
	}
	return by, nil
}

// reach waits until exactly these servers answer, and says how long that took.
func (c *cluster) reach(ctx context.Context, within time.Duration, m *member, name string, by ...string) error {
	begun := time.Now()
	var got map[string]int
	err := report.Until(ctx, within, func() (err error) {
		if got, err = m.curl(ctx, name, 6*len(by)); err != nil {
			return err
		}
		for _, server := range by {
			if got[server] == 0 || len(got) != len(by) {
				return fmt.Errorf("%s is answered by %v, want by %v", name, got, by)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("on node %s: %w", m.letter, err)
	}
	c.Say("%s: curl http://%s is answered by %s after %.1f s", m.letter, name, strings.Join(by, " and "), time.Since(begun).Seconds())
	return nil
}

func (c *cluster) reachAll(ctx context.Context, within time.Duration, nodes []*member, name string, by ...string) error {
	end := time.Now().Add(within)
	for _, m := range nodes {
		if err := c.reach(ctx, max(time.Until(end), time.Millisecond), m, name, by...); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) publishFirst(ctx context.Context) error {
	if _, err := c.nodes[1].curl(ctx, "orders", 1); err == nil {
		return fmt.Errorf("orders is there before anybody published it")
	}
	if err := c.nodes[0].publish(shared("orders", httpOrders, c.servers["orders-a"])); err != nil {
		return err
	}
	return c.reachAll(ctx, 5*time.Second, c.nodes[1:], "orders", "orders-a")
}

func (c *cluster) publishMore(ctx context.Context) error {
	if err := c.nodes[2].publish(shared("orders", httpOrders, c.servers["orders-c"])); err != nil {
		return err
	}
	if err := c.reachAll(ctx, 10*time.Second, c.nodes, "orders", "orders-a", "orders-c"); err != nil {
		return err
	}
	c.Say("Cloud Map's cd--orders: %s", strings.Join(c.aws.Instances("cd--orders"), ", "))
	return nil
}

func (c *cluster) outage(ctx context.Context) error {
	a, b := c.nodes[0], c.nodes[1]
	c.away = c.aws.Outage()
	if err := b.stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := b.begin(ctx); err != nil {
		return err
	}
	if err := a.publish(shared("orders", httpOrders, c.servers["orders-a"], c.servers["orders-a2"])); err != nil {
		return err
	}
	if err := c.reach(ctx, 5*time.Second, a, "orders", "orders-a", "orders-a2", "orders-c"); err != nil {
		return err
	}
	return c.reachAll(ctx, 5*time.Second, c.nodes[1:], "orders", "orders-a", "orders-c")
}

func (c *cluster) catchUp(ctx context.Context) error {
	c.away()
	c.away = nil
	return c.reachAll(ctx, 40*time.Second, c.nodes[1:], "orders", "orders-a", "orders-a2", "orders-c")
}

func (c *cluster) weights(ctx context.Context) error {
	a := c.nodes[0]
	if err := a.publish(shared("orders", httpOrders, c.servers["orders-a2"]), shared("pay", "", c.servers["pay-a"])); err != nil {
		return err
	}
	if err := c.reachAll(ctx, 15*time.Second, c.nodes[:2], "pay", "pay-a", "pay-ecs"); err != nil {
		return err
	}
	const times = 200
	for _, percent := range []int{1, 50, 100, 0} {
		if err := c.aws.Weights(map[string]string{"pay": strconv.Itoa(percent)}); err != nil {
			return err
		}
		for _, m := range c.nodes[:2] { // the one that serves it, and another
			var got map[string]int
			err := report.Until(ctx, 10*time.Second, func() (err error) {
				if got, err = m.curl(ctx, "pay", times); err != nil {
					return err
				}
				off := got["pay-a"] - times*percent/100
				slack := 30 // four deviations at 50 %
				if percent == 0 || percent == 100 {
					slack = 0
				} else if percent == 1 {
					slack = 8
				}
				if off < -slack || off > slack || got["pay-a"]+got["pay-ecs"] != times {
					return fmt.Errorf("at %d %% %v answered", percent, got)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("on node %s: %w", m.letter, err)
			}
			c.Say("%s: at %3d %%: %3d of %d from connectd's half, %3d from ECS's", m.letter, percent, got["pay-a"], times, got["pay-ecs"])
		}
	}
	return nil
}

func (c *cluster) commandLine(ctx context.Context) error {
	for _, args := range [][]string{{"status"}, {"endpoints"}} {
		text, err := c.nodes[1].connectd(ctx, args...)
		if err != nil {
			return err
		}
		c.Say("connectd %s:", args[0])
		c.Show(text, 12)
	}
	return nil
}
