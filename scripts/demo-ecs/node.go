package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"connectd/pkg/netns"
	"connectd/pkg/testutil/docker"
	"connectd/pkg/testutil/owned"
)

const (
	agentAddr = "127.0.0.1:51678" // in the node's namespace
	image     = "shop"            // of all tasks
)

// nodeAddr is the node's in the network of awsvpc tasks. The resolver that
// tasks have without connectd is there.
var nodeAddr = netip.MustParseAddr("10.77.0.1")

// node is a container instance: a Docker in a network namespace, and what else
// runs there.
//
// Programs are started from one OS thread that stays in the namespace: the death
// signal fires when the thread that forked ends, not the process.
type node struct {
	engine *docker.Engine
	name   string // of what the engine makes outside
	dir    string // in the engine's folder, which goes with it
	cgroup *os.File
	agent  *http.Server
	dns    net.PacketConn
	jobs   chan func()
	wg     sync.WaitGroup // of the thread, the agent and the resolver
}

// newNode makes a node. It is to be closed even when there is an error.
func newNode(ctx context.Context) (*node, error) {
	n := new(node)
	var err error
	if n.engine, err = docker.New(ctx, docker.Options{}); err != nil {
		return n, err
	}
	n.name = strings.TrimPrefix(n.engine.Cgroup(), "/")
	n.dir = filepath.Join(filepath.Dir(n.engine.Root()), "connectd")
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return n, err
	}
	root, err := owned.CgroupRoot()
	if err != nil {
		return n, err
	}
	group := filepath.Join(root, n.name, "connectd")
	if err := os.Mkdir(group, 0o755); err != nil {
		return n, err
	}
	if n.cgroup, err = os.Open(group); err != nil {
		return n, err
	}
	if err := n.enter(); err != nil {
		return n, err
	}
	return n, n.serve()
}

// enter makes the thread.
func (n *node) enter() error {
	jobs, entered := make(chan func()), make(chan error, 1)
	n.wg.Go(func() {
		err := n.engine.NS().Do(func() error {
			entered <- nil
			for job := range jobs {
				job()
			}
			return nil
		})
		if err != nil {
			entered <- err
		}
	})
	if err := <-entered; err != nil {
		return fmt.Errorf("enter the node's namespace: %w", err)
	}
	n.jobs = jobs
	return nil
}

// serve starts the agent's introspection endpoint and the resolver.
func (n *node) serve() error {
	var ln net.Listener
	err := n.engine.NS().Do(func() (err error) {
		if ln, err = net.Listen("tcp", agentAddr); err != nil {
			return err
		}
		n.dns, err = net.ListenPacket("udp", netip.AddrPortFrom(nodeAddr, 53).String())
		return err
	})
	if ln != nil {
		n.agent = &http.Server{Handler: http.HandlerFunc(answerAgent)}
		n.wg.Go(func() { n.agent.Serve(ln) })
	}
	if n.dns != nil {
		n.wg.Go(func() { answerDNS(n.dns) })
	}
	return err
}

// answerAgent is an agent that has not registered the instance: then there is
// nothing to ask AWS for.
func answerAgent(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, `{"Cluster": "demo", "ContainerInstanceArn": null, "Version": "Amazon ECS Agent - v1.99.0"}`)
}

// answerDNS says of every name that there is none, until conn is closed.
func answerDNS(conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:size]) != nil || m.Response {
			continue
		}
		m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, dnsmessage.RCodeNameError, nil
		if reply, err := m.Pack(); err == nil {
			conn.WriteTo(reply, from)
		}
	}
}

// start starts a program on the node, in a process group of its own that Ctrl-C
// in a terminal does not reach. It dies with the demo.
func (n *node) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(n.cgroup.Fd()),
	}
	started := make(chan error)
	n.jobs <- func() { started <- cmd.Start() }
	return <-started
}

// output runs a program on the node and returns all that it printed, which is in
// the error too.
func (n *node) output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+n.engine.Host(), "DOCKER_CONFIG="+n.dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.start(cmd); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := strings.TrimSpace(out.String())
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, text)
	}
	return text, err
}

// exec runs a program in a task's first container, as docker exec does.
func (n *node) exec(ctx context.Context, t *docker.Task, args ...string) (string, error) {
	return n.output(ctx, "docker", append([]string{"exec", t.Containers[0].ID}, args...)...)
}

// task starts a task of the image.
func (n *node) task(ctx context.Context, mode, family string, revision int, containers ...docker.ContainerSpec) (*docker.Task, error) {
	for i := range containers {
		containers[i].Image = image
	}
	return n.engine.Task(ctx, docker.TaskSpec{
		Cluster: "demo", Family: family, Revision: revision, NetworkMode: mode, Containers: containers, DNS: []netip.Addr{nodeAddr},
	})
}

// close ends everything on the node, its Docker last; n may be half made.
func (n *node) close() error {
	if n.agent != nil {
		n.agent.Close()
	}
	if n.dns != nil {
		n.dns.Close()
	}
	if n.jobs != nil {
		close(n.jobs)
	}
	n.wg.Wait()
	n.cgroup.Close()
	if n.engine == nil {
		return nil
	}
	return n.engine.Close()
}

// interfaces lists those of a namespace.
func interfaces(ns *netns.Handle) (names []string, err error) {
	err = ns.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			names = append(names, i.Name)
		}
		return err
	})
	return names, err
}
