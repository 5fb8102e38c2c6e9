package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"connectd/daemon/demo/report"
)

// AWS is what the nodes of a cluster demo share: a Cloud Map with the
// namespace prod in which a change shows within a second.
type AWS interface {
	// Serve answers a node's calls on a listener until closed; env leads its
	// daemon there.
	Serve(ln net.Listener, node, zone, address string) (env []string, close func())
	// Outage resets every connection until it ends.
	Outage() (end func())
	// AddECS registers an instance as ECS does it for a service of its own.
	AddECS(service string, at netip.AddrPort)
	// Weights writes the instance "weights" of the namespace's index.
	Weights(percent map[string]string) error
	// Instances lists the ids of a Cloud Map service's instances.
	Instances(service string) []string
}

// cluster is one run of the cluster demo.
type cluster struct {
	*report.Report
	opts    Options
	name    string
	aws     AWS
	world   *world
	nodes   []*member
	servers map[string]*place    // by their names
	ends    map[string]io.Closer // of the same
	log     *os.File
	closers []io.Closer
	away    func() // ends the outage
}

// member is a node of the cluster, its daemon, and one client there.
type member struct {
	*daemon
	letter string
	place  *place
	client *place
	cgroup string
	dead   bool
}

// RunCluster shows three nodes that share their services, as Run shows one.
func RunCluster(ctx context.Context, out io.Writer, opts Options, aws AWS) error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces: run it as root")
	}
	if _, err := lookPath("curl"); err != nil {
		return fmt.Errorf("not installed: curl (apt-get install curl)")
	}
	name, err := ownName()
	if err != nil {
		return err
	}
	steps := clusterSteps()
	c := &cluster{Report: report.New(out, len(steps)), opts: opts, name: name, aws: aws, servers: map[string]*place{}, ends: map[string]io.Closer{}}
	return report.Run(ctx, c.Report, c, steps, report.Demo{Sweep: sweep, Logs: c.showLogs, CleanUp: c.cleanUp, CleanTime: cleanTimeout})
}

// make makes the places, the servers and AWS.
func (c *cluster) make(context.Context) (err error) {
	if c.world, err = emptyWorld(c.name); err != nil {
		return err
	}
	w := c.world
	if c.log, err = os.Create(filepath.Join(w.dir, serversLog)); err != nil {
		return err
	}
	if w.node, err = w.makeNode(); err != nil {
		return err
	}
	last := byte(10)
	host := func(cgroup, name, etc string) (*place, error) {
		last++
		return w.hostIn(cgroup, name, netip.AddrFrom4([4]byte{10, 66, 0, last}), etc)
	}
	if w.upstream, err = w.hostIn("resolver", "resolver", upstreamAddr, ""); err != nil {
		return err
	}
	dns, err := serveDNS(w.upstream)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, dns)
	for _, name := range []string{"orders-a", "orders-a2", "orders-c", "pay-a", "pay-ecs"} {
		if c.servers[name], err = host(name, name, ""); err != nil {
			return err
		}
		s, err := serveHTTP(c.servers[name], name)
		if err != nil {
			return err
		}
		c.closers, c.ends[name] = append(c.closers, s), s
	}
	// ECS's half is there before connectd: one made later is found with the
	// next list of the namespace, which may take half an hour.
	c.aws.AddECS("pay", addrPort(c.servers["pay-ecs"]))
	aws, err := host("aws", "aws", "")
	if err != nil {
		return err
	}
	for i, letter := range []string{"a", "b", "c"} {
		m, err := c.member(letter, host)
		if err != nil {
			return err
		}
		ln, err := aws.listen(uint16(8000 + i))
		if err != nil {
			return err
		}
		var end func()
		m.place.env, end = c.aws.Serve(ln, "i-"+letter, "us-east-1"+letter, m.place.addr.String())
		c.closers = append(c.closers, closing(end))
	}
	c.Say("three nodes, each with its own daemon, bpffs directory, state, cgroup and client; one AWS")
	return nil
}

type closing func()

func (f closing) Close() error { f(); return nil }

// member makes a node.
func (c *cluster) member(letter string, host func(cgroup, name, etc string) (*place, error)) (*member, error) {
	w := c.world
	m := &member{letter: letter, cgroup: filepath.Join(w.cgroup, letter)}
	dir := filepath.Join(w.dir, letter)
	for _, d := range []string{m.cgroup, dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	if m.place, err = host(letter+"/node", "node-"+letter, ""); err != nil {
		return nil, err
	}
	etc, err := w.etc(letter)
	if err != nil {
		return nil, err
	}
	if m.client, err = host(letter+"/client", "client-"+letter, etc); err != nil {
		return nil, err
	}
	m.daemon = &daemon{world: &world{name: w.name + "-" + letter, dir: dir, node: m.place}, binary: c.opts.Binary, config: filepath.Join(dir, "connectd.yaml")}
	if m.log, err = os.Create(filepath.Join(dir, daemonLog)); err != nil {
		return nil, err
	}
	c.nodes = append(c.nodes, m) // from here on it is closed
	m.look(c.opts, c.Report)
	if err := m.write("connectd.yaml", fmt.Sprintf(clusterConfig, dir, filepath.Join(bpffsDir, m.world.name), m.cgroup, metricsAddr, m.client.netnsPath, etc)); err != nil {
		return nil, err
	}
	return m, m.publish()
}

const clusterConfig = `stateDir: %[1]s/state
bpffs: %[2]s
controlSocket: %[1]s/socket
cgroup: %[3]s
metrics: {listen: "%[4]s"}
limits: {maxConnections: 16384, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}
cloudMap: {region: us-east-1, namespaces: [prod], pollSeconds: 2, callsPerSecond: 20}
clients:
  - {name: client, netns: %[5]s, namespaces: [prod], resolvConf: %[6]s/resolv.conf}
catalog:
  files: [catalog*.yaml]
`

// shared is a service that a node publishes.
func shared(name, fields string, at ...*place) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - discoveryName: %s\n    publish: true\n    clientAliases: [{dnsName: %s, port: 80}]\n%s    endpoints:\n", name, name, fields)
	for _, p := range at {
		fmt.Fprintf(&b, "      - {address: %s, port: %d}\n", p.addr, apiPort)
	}
	return b.String()
}

func addrPort(p *place) netip.AddrPort { return netip.AddrPortFrom(p.addr, apiPort) }

// publish writes what the node serves.
func (m *member) publish(services ...string) error {
	if len(services) == 0 {
		services = []string{"  []\n"}
	}
	return m.write("catalog.yaml", "namespace: prod\nservices:\n"+strings.Join(services, ""))
}

// cleanUp ends everything and verifies that nothing is left.
func (c *cluster) cleanUp(ctx context.Context) error {
	var errs []error
	if c.away != nil {
		c.away()
	}
	for _, m := range c.nodes {
		if m.dead {
			m.log.Close()
		} else if err := m.close(ctx); err != nil {
			errs = append(errs, err)
		}
		if _, err := m.connectd(ctx, "unload"); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range c.closers {
		s.Close()
	}
	if c.log != nil {
		c.log.Close()
	}
	if c.world != nil {
		c.world.close()
	}
	errs = append(errs, remove(c.name))
	if left := leftovers(c.name); len(left) > 0 {
		errs = append(errs, fmt.Errorf("left behind: %s", strings.Join(left, ", ")))
	} else {
		c.Say("no process, namespace, cgroup, pin or file of %s is left", c.name)
	}
	return errors.Join(errs...)
}

func (c *cluster) showLogs() {
	for _, m := range c.nodes {
		path := filepath.Join(m.world.dir, daemonLog)
		text, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		c.Line("\nThe end of %s:", path)
		c.Show(strings.Join(lines[max(0, len(lines)-20):], "\n"), 20)
	}
}

// die is a machine without power: its daemon ends, and no packet comes from it
// or from what it served.
func (c *cluster) die(ctx context.Context, m *member, served ...*place) error {
	for _, p := range append(served, m.place) {
		if err := c.world.unplug(p); err != nil {
			return err
		}
	}
	m.dead = true
	m.stop(ctx, syscall.SIGKILL) // its error says that it was killed
	return nil
}
