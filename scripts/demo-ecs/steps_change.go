package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/testutil/docker"
)

// replace does what ECS does when a service gets a new task definition: new
// tasks, and when those are ready the old ones are stopped, the container that
// depends on another before that other.
func (d *demo) replace(ctx context.Context) error {
	old := d.orders
	got, err := d.underLoad(ctx, func() error {
		for i := range old {
			t, err := d.startOrders(ctx, fmt.Sprintf("orders-2%c", 'a'+i), 2)
			if t != nil {
				d.orders = append(slices.Clone(d.orders), t)
			}
			if err != nil {
				return err
			}
			if err := d.awaitReady(ctx, t); err != nil {
				return err
			}
			d.Say("%s is ready, %s is stopped: first its drain container, which takes 1 s", t.Containers[0].Name+":2", old[i].Family+":1")
			if _, err := d.node.output(ctx, "docker", "stop", "--time", "15", old[i].Container("drain").ID); err != nil {
				return err
			}
			if err := d.stop(ctx, old[i]); err != nil {
				return err
			}
			d.orders = slices.DeleteFunc(slices.Clone(d.orders), func(t *docker.Task) bool { return t == old[i] })
		}
		return nil
	})
	if err != nil {
		return err
	}
	for target, l := range got {
		for _, name := range []string{"orders-1a", "orders-1b", "orders-2a", "orders-2b"} {
			if l.ByServer[name] == 0 {
				return fmt.Errorf("%s got no call to %s", name, target)
			}
		}
		if l.Repeated > 0 {
			return fmt.Errorf("%d calls to %s had to be made again", l.Repeated, target)
		}
	}
	return nil
}

// stop stops a task as ECS does; its programs have 5 s.
func (d *demo) stop(ctx context.Context, t *docker.Task) error {
	return d.node.engine.StopTask(ctx, t, 5*time.Second)
}

const kept = 4 // connections

func (d *demo) views(ctx context.Context) error {
	for range kept {
		if err := d.tell(ctx, "/hold", []string{feedAddr}, nil); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"tasks"}, []string{"orders:2", "web:1", "bridge-caller:1", "host-caller:1"}},
		{[]string{"services"}, []string{"shop/orders", "shop/feed"}},
		{[]string{"endpoints", "orders"}, []string{d.orders[0].Addr.Addr().String() + ":8080", d.orders[1].Addr.Addr().String() + ":8080"}},
		{[]string{"connections", "--task", d.web.ID}, []string{"feed", d.orders[0].Addr.Addr().String() + ":9000"}},
		{[]string{"events", "--kind", "joined,left,draining"}, []string{"joined", "left", "draining"}},
	} {
		text, err := d.daemon.connectd(ctx, c.args...)
		if err != nil {
			return err
		}
		d.Say("connectd %s", strings.Join(c.args, " "))
		d.Show(text, 9)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				return fmt.Errorf("connectd %s does not show %s:\n%s", c.args[0], want, text)
			}
		}
	}
	return nil
}

func (d *demo) restartKilled(ctx context.Context) error {
	got, err := d.underLoad(ctx, func() error {
		if d.daemon.stop(ctx, syscall.SIGKILL) == nil {
			return errors.New("connectd survived")
		}
		d.Say("connectd is away; names and connections go on by what it left")
		if err := d.finds(ctx, "web", d.web, true); err != nil {
			return err
		}
		if err := d.heldGoOn(ctx, kept); err != nil {
			return err
		}
		if err := report.Pause(ctx, time.Second); err != nil {
			return err
		}
		started := time.Now()
		if err := d.daemon.start(ctx); err != nil {
			return err
		}
		d.Say("started again: pid %d, ready after %d ms", d.daemon.cmd.Process.Pid, time.Since(started).Milliseconds())
		return nil
	})
	if err != nil {
		return err
	}
	if n := got[ordersURL].Repeated; n > 0 {
		d.Say("%d requests were in connectd's forwarder when it was killed, and made again by the client", n)
	}
	if err := d.heldGoOn(ctx, kept); err != nil {
		return err
	}
	d.Say("%d connections kept through it all, none broken", kept)
	return nil
}

func (d *demo) brake(ctx context.Context) error {
	text, err := d.daemon.connectd(ctx, "off")
	if err != nil {
		return err
	}
	d.Say("connectd off")
	d.Show(text, 4)
	if err := d.finds(ctx, "web", d.web, false); err != nil {
		return err
	}
	hosts, err := d.node.exec(ctx, d.web, "cat", "/etc/hosts")
	if err != nil {
		return err
	}
	if strings.Contains(hosts, "orders") {
		return fmt.Errorf("the hosts file of web still has orders: %s", hosts)
	}
	if err := d.heldGoOn(ctx, kept); err != nil {
		return err
	}
	d.Say("its hosts file is as Docker made it; its %d open connections go on", kept)
	if text, err = d.daemon.connectd(ctx, "on"); err != nil {
		return err
	}
	d.Say("connectd on")
	d.Show(text, 4)
	return d.calls(ctx, "web", d.web, "orders-2")
}

func (d *demo) stopTasks(ctx context.Context) error {
	tasks := append(slices.Clone(d.orders), d.web)
	tasks = append(tasks, d.others...)
	errs := make(chan error, len(tasks))
	for _, t := range tasks {
		go func() { errs <- d.stop(ctx, t) }()
	}
	var all []error
	for range tasks {
		all = append(all, <-errs)
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	d.Say("stopped %d tasks; connectd runs on", len(tasks))
	// The kernel takes an interface out of the network when the namespace that
	// has its other end goes, which any socket or file of connectd would keep.
	network := d.node.engine.Network().NS
	err := report.Until(ctx, 10*time.Second, func() error {
		links, err := interfaces(network)
		if err == nil && len(links) != 3 {
			err = fmt.Errorf("the network still has %v", links)
		}
		return err
	})
	if err != nil {
		return err
	}
	links, err := interfaces(network)
	if err != nil {
		return err
	}
	d.Say("the network of tasks has %s, and no task's port", strings.Join(links, ", "))
	err = report.Until(ctx, 10*time.Second, func() error {
		list, err := d.daemon.Tasks(ctx)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("connectd still has %d tasks", len(list))
		}
		return err
	})
	if err != nil {
		return err
	}
	d.Say("connectd tasks lists none")
	return nil
}
