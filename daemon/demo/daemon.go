package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

const (
	metricsAddr = "127.0.0.1:9464" // in the node's namespace
	daemonLog   = "connectd.log"
	serversLog  = "servers.log"
)

// daemon is connectd as a child process, and its command line.
type daemon struct {
	world   *world
	binary  string
	config  string
	log     *os.File
	out     io.Writer // log, and with Verbose the report too
	process *process  // nil while it does not run
	http    *http.Client
}

func newDaemon(w *world, opts Options, verbose io.Writer) (*daemon, error) {
	d := &daemon{world: w, binary: opts.Binary, config: filepath.Join(w.dir, "connectd.yaml")}
	var err error
	if d.log, err = os.Create(filepath.Join(w.dir, daemonLog)); err != nil {
		return nil, err
	}
	d.look(opts, verbose)
	if err := d.write("connectd.yaml", fmt.Sprintf(config, w.dir, filepath.Join(bpffsDir, w.name), w.cgroup, metricsAddr, w.web.netnsPath)); err != nil {
		return nil, err
	}
	return d, d.write("catalog.yaml", fmt.Sprintf(catalog, w.orders["a"].addr, w.orders["b"].addr, w.orders["c"].addr,
		w.api["a"].addr, w.api["b"].addr, w.redis.addr))
}

// look makes what the demo sees the daemon through.
func (d *daemon) look(opts Options, verbose io.Writer) {
	d.out = d.log
	if opts.Verbose {
		d.out = io.MultiWriter(d.log, verbose)
	}
	d.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			return d.world.node.ns.DialMarked(ctx, network, address)
		},
	}}
}

// The cron client resolves from its hosts file while the daemon is away, the
// web client through DNS alone.
const config = `stateDir: %[1]s/state
bpffs: %[2]s
controlSocket: %[1]s/socket
cgroup: %[3]s
metrics: {listen: "%[4]s"}
limits: {maxConnections: 16384, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}
clients:
  - {name: web, netns: %[5]s, namespaces: [prod], resolvConf: %[1]s/etc-client/resolv.conf}
  - {name: cron, cgroup: %[3]s/cron, namespaces: [prod], resolvConf: %[1]s/etc-cron/resolv.conf, hostsFile: %[1]s/etc-cron/hosts}
catalog:
  files: [catalog*.yaml]
`

// Ejections are short, so that an endpoint that is back is used at once.
const catalog = `namespace: prod
services:
  - discoveryName: orders
    clientAliases: [{dnsName: orders, port: 80}]
    healthCheck: {protocol: http, path: /healthz, intervalSeconds: 0.2, timeoutSeconds: 0.2, healthyThreshold: 1, unhealthyThreshold: 2}
    outlier: {baseEjectionSeconds: 1, maxEjectionSeconds: 1}
    drain: {deadlineSeconds: 2, connections: terminate}
    endpoints:
      - {address: %[1]s, port: 8080, weight: 1}
      - {address: %[2]s, port: 8080, weight: 1}
      - {address: %[3]s, port: 8080, weight: 3}
  - discoveryName: api
    clientAliases: [{dnsName: api, port: 80}]
    healthCheck: {protocol: http, path: /healthz, intervalSeconds: 0.2, timeoutSeconds: 0.2, healthyThreshold: 1, unhealthyThreshold: 2}
    endpoints:
      - {address: %[4]s, port: 8080}
      - {address: %[5]s, port: 8080}
  - discoveryName: cart
    clientAliases: [{dnsName: cart, port: 80}]
    appProtocol: http
    endpoints:
      - {address: %[4]s, port: 8080}
      - {address: %[5]s, port: 8080}
  - discoveryName: cache
    clientAliases: [{dnsName: cache, port: 6379}]
    endpoints: [{address: %[6]s, port: 6379}]
  - discoveryName: echo
    protocol: udp
    clientAliases: [{dnsName: echo, port: 7}]
    endpoints:
      - {address: %[4]s, port: 7007}
      - {address: %[5]s, port: 7007}
`

// write puts a file in its place as a whole.
func (d *daemon) write(name, content string) error {
	path := filepath.Join(d.world.dir, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// start runs the daemon until it is ready.
func (d *daemon) start(ctx context.Context) (err error) {
	if d.process, err = d.world.node.run(d.out, d.binary, "run", "-c", d.config); err != nil {
		return err
	}
	return report.Until(ctx, 10*time.Second, func() error {
		if err := d.process.running(); err != nil {
			return fmt.Errorf("connectd run: %w", err)
		}
		_, err := d.fetch(ctx, "/readyz")
		return err
	})
}

// fetch reads a page of the daemon's HTTP server.
func (d *daemon) fetch(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddr+path, nil)
	if err != nil {
		return "", err
	}
	res, err := d.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// stop ends the daemon with a signal.
func (d *daemon) stop(ctx context.Context, sig syscall.Signal) error {
	pr := d.process
	d.process = nil
	return pr.stop(ctx, sig)
}

// connectd runs a command of the binary.
func (d *daemon) connectd(ctx context.Context, args ...string) (string, error) {
	return d.world.node.output(ctx, d.binary, append(args, "-c", d.config)...)
}

// ask runs a reading command and decodes what it prints.
func ask[T any](ctx context.Context, d *daemon, args ...string) (value T, err error) {
	text, err := d.connectd(ctx, append(args, "-o", "json")...)
	if err != nil {
		return value, err
	}
	return value, json.Unmarshal([]byte(text), &value)
}

// close ends the daemon, whose exit status must be 0.
func (d *daemon) close(ctx context.Context) error {
	defer d.log.Close()
	if d.process == nil {
		return nil
	}
	if err := d.stop(ctx, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end the daemon: %w", err)
	}
	return nil
}

// showLogs shows the ends of what the daemon and the servers wrote, before the
// files are removed.
func (d *demo) showLogs() {
	const most = 40
	for _, path := range []string{filepath.Join(runDir, d.name, daemonLog), filepath.Join(runDir, d.name, serversLog)} {
		text, _ := os.ReadFile(path) // it may not have come to that
		if len(text) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		d.Line("\nThe end of %s:", path)
		d.Show(strings.Join(lines[max(0, len(lines)-most):], "\n"), most)
		d.Line("")
	}
}
