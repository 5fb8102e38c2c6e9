package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

func (d *demo) make(ctx context.Context) (err error) {
	if d.world, err = newWorld(d.name); err != nil {
		return err
	}
	if d.serve, err = startServers(ctx, d.world); err != nil {
		return err
	}
	if d.web, err = startClient(d.world.web, d.serve.log); err != nil {
		return err
	}
	d.Say("servers: nginx a, b (weight 1), c (weight 3); redis; built-in HTTP and UDP a, b; a DNS resolver")
	d.Say("clients: web (a network namespace), cron (a cgroup), and stranger, which connectd is not told of")
	return nil
}

func (d *demo) runDaemon(ctx context.Context) (err error) {
	if d.daemon, err = newDaemon(d.world, d.opts, d.Report); err != nil {
		return err
	}
	text, err := d.daemon.connectd(ctx, "check")
	if err != nil {
		return err
	}
	d.Say("connectd check: %s", strings.TrimSpace(text))
	started := time.Now()
	if err := d.daemon.start(ctx); err != nil {
		return err
	}
	d.Say("connectd run: pid %d, ready after %d ms", d.daemon.process.pid(), time.Since(started).Milliseconds())
	if err := d.waitStates(ctx, "prod/orders", "active active active"); err != nil {
		return err
	}
	d.Say("all endpoints passed their first health check after %d ms", time.Since(started).Milliseconds())
	return nil
}

// lookups are ways to resolve a name: each returns all that the program
// printed.
var lookups = []struct {
	title string
	argv  []string // the name is put last
}{
	{"getent (glibc)", []string{"getent", "ahostsv4"}},
	{"dig, UDP", []string{"dig", "+short", "+tries=1"}},
	{"dig, TCP", []string{"dig", "+short", "+tcp", "+tries=1"}},
	{"busybox nslookup", []string{"busybox", "nslookup"}},
}

func (d *demo) resolveNames(ctx context.Context) error {
	vip, err := d.web.resolve(ctx, "orders")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(vip.String(), "127.254.") {
		return fmt.Errorf("orders is %s, no VIP", vip)
	}
	d.vip = vip.String()
	d.Say("%-30s orders = %s", "Go, in a process that runs", d.vip)
	for _, l := range lookups {
		if err := d.lookUp(ctx, d.world.web, l.title, l.argv, "orders", d.vip); err != nil {
			return err
		}
	}
	if err := d.lookUp(ctx, d.world.cron, "getent in the cgroup client", lookups[0].argv, "orders", d.vip); err != nil {
		return err
	}
	for _, l := range lookups {
		if err := d.lookUp(ctx, d.world.web, l.title, l.argv, outsideName, outsideAddr.String()); err != nil {
			return err
		}
	}
	d.Say("%s is outside: the client's own resolver answered, asked from inside its namespace", outsideName)
	return nil
}

func (d *demo) lookUp(ctx context.Context, p *place, title string, argv []string, name, want string) error {
	// busybox exits 1 when there is no AAAA beside the A.
	text, err := p.output(ctx, argv[0], append(argv[1:len(argv):len(argv)], name)...)
	if !strings.Contains(text, want) {
		return fmt.Errorf("%s does not say that %s is %s, but %q (%v)", title, name, want, text, err)
	}
	d.Say("%-30s %s = %s", title, name, want)
	return nil
}

func (d *demo) outsider(ctx context.Context) error {
	text, err := d.world.stranger.output(ctx, "getent", "ahostsv4", "orders")
	if err == nil {
		return fmt.Errorf("orders resolves to %q", text)
	}
	d.Say("getent orders: no such name")
	text, err = d.world.stranger.output(ctx, "curl", "-sS", "--max-time", "2", "http://"+d.vip)
	if err == nil {
		return fmt.Errorf("the VIP leads to %q", text)
	}
	d.Say("curl %s: it leads nowhere", d.vip)
	return nil
}

func (d *demo) addresses(ctx context.Context) error {
	for _, c := range []struct {
		title string
		place *place
	}{{"web", d.world.web}, {"cron", d.world.cron}} {
		text, err := c.place.output(ctx, "curl", "-sS", "--max-time", "5", "-w", "%{remote_ip} %{remote_port} %{local_ip}", "http://orders")
		if err != nil {
			return err
		}
		got := strings.Fields(text)
		if len(got) != 5 {
			return fmt.Errorf("curl says %q", text)
		}
		server, seen, peer, local := got[0], got[1], got[2]+":"+got[3], got[4]
		d.Say("%-5s curl http://orders: nginx %s answers; curl sees %s; nginx sees %s", c.title, server, peer, seen)
		if peer != d.vip+":80" {
			return fmt.Errorf("curl sees %s, not the VIP %s:80", peer, d.vip)
		}
		if addr := c.place.addr.String(); seen != addr || local != addr {
			return fmt.Errorf("nginx sees %s and curl %s, not the client's address %s", seen, local, addr)
		}
	}
	return nil
}

func (d *demo) otherProtocols(ctx context.Context) error {
	stamp := time.Now().Format(time.RFC3339Nano)
	for _, c := range []struct{ command, want string }{{"SET", "OK"}, {"GET", stamp}} {
		args := []string{"-h", "cache", "-p", "6379", c.command, "demo"}
		if c.command == "SET" {
			args = append(args, stamp)
		}
		text, err := d.world.web.output(ctx, "redis-cli", args...)
		if err != nil {
			return err
		}
		text = strings.TrimSpace(text)
		d.Say("redis-cli %s: %s", strings.Join(args, " "), text)
		if text != c.want {
			return fmt.Errorf("redis says %q, want %q", text, c.want)
		}
	}
	seen := map[string]int{}
	for range 8 {
		r, err := d.web.ask(ctx, request{Op: "udp", Target: "echo:7"})
		if err != nil {
			return fmt.Errorf("UDP echo: %w", err)
		}
		fields := strings.Fields(r.Text)
		if len(fields) != 3 || fields[1] != d.world.web.addr.String() || fields[2] != "hello" {
			return fmt.Errorf("UDP echo says %q", r.Text)
		}
		seen[fields[0]]++
	}
	d.Say("UDP to echo:7, 8 sockets: %s", counts(seen))
	if len(seen) != 2 {
		return errors.New("UDP does not spread over both endpoints")
	}
	return nil
}
