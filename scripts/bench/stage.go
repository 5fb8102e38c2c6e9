package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// stage is what proxies are compared on: two nginx and two gRPC servers in
// namespaces of their own, and in the client's namespace all the contenders,
// which wait at no cost until they are called.
type stage struct {
	world
	node       *node
	dir        string
	client     *peer // the load that is measured
	bulk       *peer // a load beside it
	processes  []*process
	sidecars   []int // pids
	connectd   contender
	haproxy    contender
	again      contender // the same HAProxy, a second process: what differs between the two is noise
	pair       contender // a HAProxy before the client and one before each server
	reverse    contender
	directVIP  string
	plainVIP   string
	directHTTP string // the first server itself
}

// contender is a way from the client to the servers.
type contender struct {
	name  string
	front map[int]string // by frontHTTP and so on
	pids  []int          // what CPU time is its
}

const (
	baseHAProxy = 7000
	baseAgain   = 7100
	basePair    = 7200
	baseReverse = 7300
)

func newStage(ctx context.Context, binary string) (*stage, error) {
	s := &stage{}
	if err := s.open(ctx, binary); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) open(ctx context.Context, binary string) (err error) {
	if s.world, err = newWorld(ctx); err != nil {
		return err
	}
	s.dir, err = os.MkdirTemp("", s.prefix+"stage-")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "mib"), make([]byte, mib), 0o644); err != nil {
		return err
	}
	if s.client, err = startPeer(s.netns("client")); err != nil {
		return err
	}
	if s.bulk, err = startPeer(s.netns("client")); err != nil {
		return err
	}
	if err := s.startServers(); err != nil {
		return err
	}
	if err := s.startPeers(); err != nil {
		return err
	}
	if err := s.startDaemon(ctx, binary); err != nil {
		return err
	}
	return s.check()
}

// start starts a program of the stage.
func (s *stage) start(netns string, args ...string) (int, error) {
	p, err := startIn(s.netns(netns), args[0], args[1:]...)
	if err != nil {
		return 0, err
	}
	s.processes = append(s.processes, p)
	return p.pid(), nil
}

func (s *stage) startServers() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, host := range hosts[1:] {
		config := filepath.Join(s.dir, host.name+".nginx")
		if err := os.WriteFile(config, []byte(nginxConfig(s.dir, host.name)), 0o644); err != nil {
			return err
		}
		if _, err := s.start(host.name, "nginx", "-p", s.dir, "-c", config); err != nil {
			return err
		}
		if _, err := s.start(host.name, self, grpcCommand, fmt.Sprintf("%s:%d", host.address, grpcPort)); err != nil {
			return err
		}
		pid, err := s.startHAProxy(host.name, "sidecar-"+host.name, haproxySidecar(host.address))
		if err != nil {
			return err
		}
		s.sidecars = append(s.sidecars, pid)
	}
	return nil
}

func (s *stage) startHAProxy(netns, name, config string) (int, error) {
	path := filepath.Join(s.dir, name+".haproxy")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return 0, err
	}
	return s.start(netns, "haproxy", "-db", "-f", path)
}

func (s *stage) startPeers() error {
	for _, h := range []struct {
		into    *contender
		name    string
		base    int
		webPort int
	}{
		{&s.haproxy, "HAProxy", baseHAProxy, nginxPort},
		{&s.again, "HAProxy again", baseAgain, nginxPort},
		{&s.pair, "HAProxy pair", basePair, sidecarPort},
	} {
		pid, err := s.startHAProxy("client", fmt.Sprint(h.base), haproxyFront(h.base, h.webPort))
		if err != nil {
			return err
		}
		*h.into = contender{h.name, fronts(h.base), []int{pid}}
	}
	s.pair.pids = append(s.pair.pids, s.sidecars...)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	list := func(port int) string { return strings.Join(servers(port), ",") }
	pid, err := s.start("client", self, reverseCommand,
		frontAddress(baseReverse, frontHTTP)+"="+list(nginxPort),
		"h2:"+frontAddress(baseReverse, frontHTTP2)+"="+list(nginxHTTP2Port),
		"h2:"+frontAddress(baseReverse, frontGRPC)+"="+list(grpcPort))
	s.reverse = contender{"ReverseProxy", fronts(baseReverse), []int{pid}}
	return err
}

func fronts(base int) map[int]string {
	return map[int]string{
		frontHTTP: frontAddress(base, frontHTTP), frontHTTP2: frontAddress(base, frontHTTP2), frontGRPC: frontAddress(base, frontGRPC),
	}
}

func (s *stage) startDaemon(ctx context.Context, binary string) (err error) {
	if s.node, err = newNode(binary, s.world); err != nil {
		return err
	}
	if err := s.node.catalog(perFile); err != nil {
		return err
	}
	if _, err := s.node.write(stageCatalog, stageServices()); err != nil {
		return err
	}
	if err := s.restart(ctx); err != nil {
		return err
	}
	s.connectd.name, s.connectd.front = "connectd", map[int]string{}
	address := func(service string) string {
		vip, vipErr := s.node.vip(ctx, service)
		err = errors.Join(err, vipErr)
		return netip.AddrPortFrom(vip, 80).String()
	}
	s.connectd.front[frontHTTP] = address(serviceHTTP)
	s.connectd.front[frontHTTP2] = address(serviceHTTP2)
	s.connectd.front[frontGRPC] = address(serviceGRPC)
	s.directVIP, s.plainVIP = address(serviceDirect), address(servicePlain)
	s.directHTTP = servers(nginxPort)[0]
	return err
}

// restart stops the daemon, if it runs, and starts it.
func (s *stage) restart(ctx context.Context) error {
	if err := s.node.stop(); err != nil {
		return err
	}
	if _, err := s.node.start(ctx); err != nil {
		return err
	}
	s.connectd.pids = []int{s.node.cmd.Process.Pid}
	return nil
}

func (s *stage) contenders() []*contender {
	return []*contender{&s.connectd, &s.haproxy, &s.again, &s.pair, &s.reverse}
}

// check waits until all listen and has gRPC called everywhere.
func (s *stage) check() error {
	var orders []order
	for _, kind := range []int{nginxPort, nginxHTTP2Port, grpcPort, sidecarPort} {
		for _, at := range servers(kind) {
			orders = append(orders, order{Reach: at})
		}
	}
	for _, c := range s.contenders() {
		orders = append(orders, order{Reach: c.front[frontHTTP]}, order{Reach: c.front[frontHTTP2]}, order{Unary: c.front[frontGRPC]})
	}
	for _, o := range orders {
		if _, err := s.client.do(o); err != nil {
			return fmt.Errorf("%w%s", err, s.said())
		}
	}
	return nil
}

// said is what programs of the stage complained of.
func (s *stage) said() string {
	var out strings.Builder
	for _, p := range s.processes {
		if text := p.said.String(); text != "" {
			fmt.Fprintf(&out, "\n%s: %s", filepath.Base(p.cmd.Args[4]), text)
		}
	}
	return out.String()
}

func (s *stage) close() error {
	for _, p := range []*peer{s.client, s.bulk} {
		if p != nil {
			p.close()
		}
	}
	var err error
	if s.node != nil {
		err = s.node.close()
	}
	for _, p := range s.processes {
		p.close()
	}
	return errors.Join(err, s.world.close(), os.RemoveAll(s.dir))
}
