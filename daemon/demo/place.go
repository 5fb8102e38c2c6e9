package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/netns"
)

const netnsDir = "/run/netns"

// commandTimeout is how long a client program may take.
const commandTimeout = 10 * time.Second

// place is where programs run: a network namespace, a cgroup, and, if etc is
// set, files of their own over those in /etc.
//
// Programs are started from one OS thread that lives as long as the place and
// stays in its namespaces. A thread of the Go runtime will not do: the death
// signal fires when the thread that forked ends, not the process.
type place struct {
	netnsPath string
	addr      netip.Addr
	ns        *netns.Handle
	cgroup    *os.File
	etc       string   // "" is the machine's own files
	env       []string // of its long-lived programs, besides the demo's own
	port      string   // of its link on the bridge; "" is none
	jobs      chan func()
	done      chan struct{}
}

func (p *place) netnsName() string { return filepath.Base(p.netnsPath) }

// open makes the thread.
func (p *place) open() error {
	p.jobs, p.done = make(chan func()), make(chan struct{})
	entered := make(chan error)
	go func() {
		defer close(p.done)
		netns.OnThread(func() error {
			err := p.enter()
			entered <- err
			if err != nil {
				return err
			}
			for job := range p.jobs {
				job()
			}
			return nil
		})
	}()
	if err := <-entered; err != nil {
		<-p.done
		p.jobs = nil
		return fmt.Errorf("enter %s: %w", p.netnsPath, err)
	}
	return nil
}

// close ends the thread, and by the death signal whatever it started.
func (p *place) close() {
	if p.jobs != nil {
		close(p.jobs)
		<-p.done
		p.jobs = nil
	}
	p.ns.Close()
	p.cgroup.Close()
}

func (p *place) enter() error {
	f, err := os.Open(p.netnsPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	if p.etc == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The copies of other namespaces' bindings would keep those alive.
	for _, name := range entries(netnsDir) {
		unix.Unmount(filepath.Join(netnsDir, name), unix.MNT_DETACH)
	}
	for _, name := range entries(p.etc) {
		from, to := filepath.Join(p.etc, name), filepath.Join("/etc", name)
		err := unix.Mount(from, to, "", unix.MS_BIND, "")
		// Without the file glibc takes "files dns", which is what ours says.
		if errors.Is(err, unix.ENOENT) && name == "nsswitch.conf" {
			continue
		}
		if err != nil {
			return fmt.Errorf("mount over %s: %w", to, err)
		}
	}
	return nil
}

// start starts a program here, in a process group of its own that Ctrl-C in a
// terminal does not reach. It dies with the demo.
func (p *place) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL,
		UseCgroupFD: true, CgroupFD: int(p.cgroup.Fd()),
	}
	started := make(chan error)
	p.jobs <- func() { started <- cmd.Start() }
	return <-started
}

// output runs a program and returns what it printed. Its error has what it
// complained of.
func (p *place) output(ctx context.Context, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := p.start(cmd); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), err
}

// listen and listenPacket make the sockets of built-in servers. Multipath TCP,
// Go's default, is off: a drain could not end its connections.
func (p *place) listen(port uint16) (ln net.Listener, err error) {
	err = p.ns.Do(func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(p.addr, port).String())
		return err
	})
	return ln, err
}

func (p *place) listenPacket(port uint16) (conn net.PacketConn, err error) {
	err = p.ns.Do(func() error {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(p.addr, port).String())
		return err
	})
	return conn, err
}
