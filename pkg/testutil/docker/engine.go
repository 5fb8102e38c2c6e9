// Package docker runs a real dockerd for tests and demos: on its own socket and
// data root, in a network and a mount namespace of its own, its containers in
// cgroups of its own. Nothing of the machine's is touched: neither its iptables
// nor its mounts, nor a Docker that runs there.
//
//	e := docker.Start(t, docker.Options{NS: node.NS()})
//	e.Image(ctx, "app", map[string]string{"/app": path}, docker.Config{Entrypoint: []string{"/app"}})
//	task, err := e.Task(ctx, docker.TaskSpec{...})
//
// Names carry the maker's pid and start time, so that the next Start removes
// what a killed process left, and engines run beside one another.
package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
	"connectd/pkg/testutil/owned"
)

const (
	startTime = 60 * time.Second // dockerd and containerd load in 1 s, on a busy machine in 10
	stopTime  = 30 * time.Second // dockerd gives containers 15 s unless they stay alive
)

// Options say how an engine is made; the zero value is one that nobody else sees.
type Options struct {
	// NS is the namespace that dockerd runs in: the node's. Its docker0, iptables
	// and published ports are there. nil makes one.
	NS *netns.Handle
	// Network is of awsvpc tasks; the zero value makes one that the node is on.
	Network Network
	// Dir is where the engine's folder is made; os.TempDir() by default. Unix
	// sockets lie in it, so it must be short: at most 40 characters.
	Dir string
	// NoLiveRestore has containers end when dockerd stops.
	NoLiveRestore bool
}

// Engine is a dockerd with a containerd of its own.
type Engine struct {
	*client.Client

	name   string // of its folder and its cgroups
	dir    string
	driver string // of storage
	opts   Options
	ns     *netns.Handle
	room   *room
	net    *Network
	vpc    *netns.Handle // of net, when it is the engine's own
	cgroup *os.File      // the v2 cgroup that dockerd is started in

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil while dockerd is stopped
	exited chan struct{} // closed when cmd has ended
	tasks  int           // made so far, which numbers them

	imageMu sync.Mutex
	paused  bool // the pause image is there
}

// New starts an engine and returns when it answers. What killed processes left
// is removed first. Close ends it.
func New(ctx context.Context, o Options) (_ *Engine, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start dockerd: needs root")
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if len(o.Dir) > 40 {
		return nil, fmt.Errorf("start dockerd: %s is too long a path for its sockets", o.Dir)
	}
	if err := Sweep(o.Dir); err != nil {
		return nil, fmt.Errorf("sweep what killed processes left: %w", err)
	}
	e := &Engine{opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := e.makeDir(); err != nil {
		return nil, err
	}
	if e.room, err = newRoom(o.NS); err != nil {
		return nil, err
	}
	if e.ns, err = e.room.netns(); err != nil {
		return nil, err
	}
	if e.net = &o.Network; o.Network.NS == nil {
		if err := e.makeNetwork(); err != nil {
			return nil, fmt.Errorf("make network of tasks: %w", err)
		}
	}
	if err := e.makeCgroup(); err != nil {
		return nil, err
	}
	if err := e.chooseDriver(); err != nil {
		return nil, err
	}
	if e.Client, err = client.New(client.WithHost(e.Host())); err != nil {
		return nil, err
	}
	return e, e.Start(ctx)
}

// makeDir takes the first free name "<prefix>docker<n>".
func (e *Engine) makeDir() error {
	prefix, err := owned.Prefix()
	if err != nil {
		return err
	}
	for n := range 1 << 10 {
		e.name = fmt.Sprintf("%sdocker%d", prefix, n)
		dir := filepath.Join(e.opts.Dir, e.name)
		err = os.Mkdir(dir, 0o711) // containers of other users pass through it
		if err == nil {
			e.dir = dir
			return os.WriteFile(e.path("daemon.json"), []byte("{}"), 0o644)
		}
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	return err
}

func (e *Engine) path(name string) string { return filepath.Join(e.dir, name) }

// makeCgroup makes a leaf for dockerd, containerd and shims beside those of the
// containers: in v2 a cgroup with members hands no controllers on.
func (e *Engine) makeCgroup() error {
	root, err := owned.CgroupRoot()
	if err != nil {
		return err
	}
	path := filepath.Join(root, e.name, "engine")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	e.cgroup, err = os.Open(path)
	return err
}

// chooseDriver tries an overlay: inside of a container the kernel refuses one
// over another.
func (e *Engine) chooseDriver() error {
	var dirs [4]string
	for i, name := range []string{"lower", "upper", "work", "merged"} {
		dirs[i] = e.path("try/" + name)
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			return err
		}
	}
	e.driver = "overlay2"
	e.room.do(func() error {
		err := unix.Mount("overlay", dirs[3], "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dirs[0], dirs[1], dirs[2]))
		if err != nil {
			e.driver = "vfs"
			return nil
		}
		return unix.Unmount(dirs[3], unix.MNT_DETACH)
	})
	return os.RemoveAll(e.path("try"))
}

// Host is where the engine listens, as DOCKER_HOST has it.
func (e *Engine) Host() string { return "unix://" + e.path("docker.sock") }

// Root is the engine's data root, where containers' hosts files are.
func (e *Engine) Root() string { return e.path("data") }

// NS is the network namespace that dockerd runs in. It is the engine's own
// handle.
func (e *Engine) NS() *netns.Handle { return e.ns }

// Network is where the interfaces of awsvpc tasks are. Its NS is the caller's of
// Options, or the engine's own handle.
func (e *Engine) Network() Network { return *e.net }

// Cgroup is the path below the cgroup roots under which all containers are.
func (e *Engine) Cgroup() string { return "/" + e.name }

// Start starts dockerd again after Stop or Kill, and returns when it answers.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cmd != nil {
		return errors.New("start dockerd: it runs")
	}
	log, err := os.OpenFile(e.path("dockerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", e.args()...)
	cmd.Stdout, cmd.Stderr = log, log
	// A DOCKER_* of the caller's is not for this one.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=/root", "TMPDIR=" + e.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:     true, // an interrupt from the terminal is for the caller
		Pdeathsig:   syscall.SIGKILL,
		UseCgroupFD: true,
		CgroupFD:    int(e.cgroup.Fd()),
	}
	if err := e.room.do(cmd.Start); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	e.cmd, e.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		defer close(exited)
		cmd.Wait()
	}(e.exited)
	return e.answers(ctx)
}

func (e *Engine) args() []string {
	args := []string{
		"--host=" + e.Host(),
		"--config-file=" + e.path("daemon.json"),
		"--data-root=" + e.Root(),
		"--exec-root=" + e.path("exec"),
		"--pidfile=" + e.path("docker.pid"),
		"--cgroup-parent=" + e.Cgroup() + "/docker",
		"--exec-opt=native.cgroupdriver=cgroupfs",
		"--storage-driver=" + e.driver,
		"--log-level=warn",
	}
	if !e.opts.NoLiveRestore {
		args = append(args, "--live-restore")
	}
	return args
}

// answers waits until dockerd does.
func (e *Engine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := e.Ping(ctx, client.PingOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-e.exited:
			e.cmd = nil
			return fmt.Errorf("start dockerd: it ended: %s", e.Log(10))
		case <-ctx.Done():
			return fmt.Errorf("start dockerd: %w, last: %s: %s", ctx.Err(), err, e.Log(10))
		}
	}
}

// Log returns the last lines that dockerd and containerd wrote.
func (e *Engine) Log(lines int) string {
	text, _ := os.ReadFile(e.path("dockerd.log"))
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Stop ends dockerd and containerd as a package upgrade does; containers live on
// unless NoLiveRestore.
func (e *Engine) Stop() error { return e.end(syscall.SIGTERM) }

// Kill ends dockerd as a crash does; containerd, its child, goes with it.
func (e *Engine) Kill() error { return e.end(syscall.SIGKILL) }

// Restart is Stop and Start.
func (e *Engine) Restart(ctx context.Context) error {
	return errors.Join(e.Stop(), e.Start(ctx))
}

func (e *Engine) end(signal syscall.Signal) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cmd == nil {
		return nil
	}
	e.cmd.Process.Signal(signal)
	select {
	case <-e.exited:
	case <-time.After(stopTime):
		e.cmd.Process.Kill()
		<-e.exited
		return fmt.Errorf("stop dockerd: it had to be killed after %s: %s", stopTime, e.Log(10))
	}
	e.cmd = nil
	return e.awaitContainerd()
}

// awaitContainerd waits until the containerd of a dockerd that ended has ended
// too, and removes the file with its pid: the next dockerd takes it for alive
// while init has not reaped it.
func (e *Engine) awaitContainerd() error {
	path := e.path("exec/containerd/containerd.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil // it removed the file, or was never started
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for deadline := time.Now().Add(stopTime); owned.Alive(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("stop containerd: process %d is alive after %s", pid, stopTime)
		}
	}
	return os.Remove(path)
}

// Close kills dockerd, shims and containers, and removes all that was made.
// Calling it again does nothing.
func (e *Engine) Close() error {
	var errs []error
	errs = append(errs, e.Kill()) // first, or it restarts containers
	if e.Client != nil {
		e.Client.Close()
	}
	if e.cgroup != nil {
		e.cgroup.Close()
		errs = append(errs, owned.RemoveCgroup(e.name))
		e.cgroup = nil
	}
	// The mounts go with the last process and the room. Only then does a folder
	// hold its own files alone.
	e.room.close()
	e.ns.Close()
	e.vpc.Close()
	e.room, e.ns, e.vpc = nil, nil, nil
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
		e.dir = ""
	}
	return errors.Join(errs...)
}

// Sweep removes what engines of processes that no longer run left: dockerd's
// children, cgroups and folders in dir.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if name := entry.Name(); owned.Abandoned(name) && strings.Contains(name, "-docker") {
			errs = append(errs, owned.RemoveCgroup(name), os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}
