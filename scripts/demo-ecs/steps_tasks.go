package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/control"
	"connectd/pkg/testutil/docker"
)

func (d *demo) makeNode(ctx context.Context) (err error) {
	if d.node, err = newNode(ctx); err != nil {
		return err
	}
	version, err := d.node.output(ctx, "docker", "version", "--format", "Docker {{.Server.Version}}, {{.Server.Os}}/{{.Server.Arch}}")
	if err != nil {
		return err
	}
	links, err := interfaces(d.node.engine.NS())
	if err != nil {
		return err
	}
	d.Say("%s, in a network namespace with %s", version, strings.Join(links, ", "))
	app := filepath.Join(d.node.dir, "app")
	if err := docker.Build(ctx, "connectd/scripts/demo-ecs/app", app); err != nil {
		return err
	}
	files := map[string]string{"/app": app}
	for _, name := range []string{"busybox", "sh", "wget", "timeout", "sleep", "cat"} {
		files["/bin/"+name] = "/bin/busybox"
	}
	if err := d.node.engine.Image(ctx, image, files, docker.Config{Env: []string{"PATH=/bin"}}); err != nil {
		return err
	}
	d.Say("an image of two static programs; the agent answers at %s", agentAddr)
	return nil
}

func (d *demo) runDaemon(ctx context.Context) (err error) {
	if d.daemon, err = newDaemon(d.node, d.opts, d.Report); err != nil {
		return err
	}
	text, err := os.ReadFile(d.daemon.config)
	if err != nil {
		return err
	}
	d.Show(string(text), 20)
	started := time.Now()
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	d.Say("connectd run: pid %d, ready after %d ms", d.daemon.cmd.Process.Pid, time.Since(started).Milliseconds())
	return nil
}

// readiness starts orders, one of whose programs does not listen at first.
func (d *demo) readiness(ctx context.Context) error {
	const file = "/listen"
	d.Say("orders has the label %s:", connectLabel)
	d.Say("| %s", ordersConnect)
	for i, wait := range [][]string{{file}, nil} {
		t, err := d.startOrders(ctx, fmt.Sprintf("orders-1%c", 'a'+i), 1, wait...)
		if t != nil {
			d.orders = append(d.orders, t)
		}
		if err != nil {
			return err
		}
	}
	slow, fast := d.orders[0], d.orders[1]
	if err := d.awaitReady(ctx, fast); err != nil {
		return err
	}
	text, err := d.ready(ctx, slow)
	if err != nil {
		return err
	}
	d.Say("GET %s in a task whose program does not listen yet: %s", readyURL, text)
	if !strings.HasPrefix(text, "503 ") {
		return errors.New("it should be 503")
	}
	if _, err := d.node.exec(ctx, slow, "sh", "-c", ">"+file); err != nil {
		return err
	}
	if err := d.awaitReady(ctx, slow); err != nil {
		return err
	}
	text, err = d.ready(ctx, slow)
	if err == nil {
		d.Say("and when it does: %s", text)
	}
	return err
}

func (d *demo) call(ctx context.Context) (err error) {
	d.web, err = d.node.task(ctx, "awsvpc", "web", 1, docker.ContainerSpec{
		Name: "web", Cmd: []string{"/app", "client"}, Labels: map[string]string{connectLabel: clientConnect},
	})
	if err != nil {
		return err
	}
	addr := d.web.Addr.Addr().String()
	d.Say("web has the label %s: %s", connectLabel, clientConnect)
	if err := d.calls(ctx, "web, "+addr+",", d.web, "orders-1"); err != nil {
		return err
	}
	text, err := d.wget(ctx, d.web, ordersURL)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(text, " sees "+addr) {
		return fmt.Errorf("orders does not see web's own address %s: %s", addr, text)
	}
	hosts, err := d.node.exec(ctx, d.web, "cat", "/etc/hosts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(hosts) {
		if strings.Contains(line, "orders") {
			d.Say("its /etc/hosts, for when connectd is away: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

func (d *demo) modes(ctx context.Context) error {
	for _, mode := range []string{"bridge", "host"} {
		t, err := d.startShell(ctx, mode, mode+"-caller", map[string]string{connectLabel: clientConnect})
		if err != nil {
			return err
		}
		if err := d.calls(ctx, "a task in "+mode+" mode", t, "orders-1"); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) stranger(ctx context.Context) error {
	t, err := d.startShell(ctx, "awsvpc", "stranger", nil)
	if err != nil {
		return err
	}
	return d.finds(ctx, "stranger", t, false)
}

// finds checks whether a task can call, by name.
func (d *demo) finds(ctx context.Context, who string, t *docker.Task, want bool) error {
	text, err := d.wget(ctx, t, ordersURL)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil != want {
		return fmt.Errorf("%s calls orders: %q, %v", who, text, err)
	}
	if err == nil {
		d.Say("%-28s wget %s says: %s", who, ordersURL, text)
		return nil
	}
	if !strings.Contains(err.Error(), "bad address") {
		return fmt.Errorf("%s should find no name: %w", who, err)
	}
	d.Say("%-28s wget %s says: %s", who, ordersURL, text)
	return nil
}

func (d *demo) badLabel(ctx context.Context) error {
	t, err := d.startShell(ctx, "awsvpc", "mistaken", map[string]string{connectLabel: wrongConnect})
	if err != nil {
		return err
	}
	err = report.Until(ctx, 10*time.Second, func() error {
		page, err := d.daemon.Events(ctx, control.EventFilter{Task: t.ID, Kinds: []string{string(control.EventProblem)}})
		if err == nil && len(page.Events) == 0 {
			err = errors.New("no event of it")
		}
		return err
	})
	if err != nil {
		return err
	}
	text, err := d.daemon.connectd(ctx, "events", "--kind", "problem", "--task", t.ID)
	if err != nil {
		return err
	}
	d.Say("its label: %s", wrongConnect)
	d.Say("connectd events --kind problem:")
	d.Show(text, 4)
	if err := d.finds(ctx, "mistaken", t, false); err != nil {
		return err
	}
	return d.finds(ctx, "web", d.web, true)
}
