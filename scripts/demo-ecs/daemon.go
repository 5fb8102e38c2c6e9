package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/control"
	"connectd/pkg/testutil/owned"
)

const bpffsDir = "/sys/fs/bpf"

// config is as short as on a real instance but for the places, which are the
// demo's own. The hooks see the containers of the demo's Docker only.
const config = `stateDir: %[1]s/state
bpffs: %[2]s
controlSocket: %[1]s/socket
cgroup: %[3]s
limits: {maxConnections: 16384, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}
`

const configECS = `ecs:
  docker: %s
  namespaces: [shop]
`

// daemon is connectd as a child process, and its command line.
type daemon struct {
	*control.Client
	node   *node
	binary string
	config string
	log    *os.File
	out    io.Writer // log, and with -v the report too

	cmd  *exec.Cmd     // nil while it does not run
	done chan struct{} // closed when cmd has ended
	err  error         // how; valid after done
}

func newDaemon(n *node, o options, verbose io.Writer) (*daemon, error) {
	root, err := owned.CgroupRoot()
	if err != nil {
		return nil, err
	}
	d := &daemon{node: n, binary: o.binary, config: filepath.Join(n.dir, "connectd.yaml"), Client: control.NewClient(filepath.Join(n.dir, "socket"))}
	text := fmt.Sprintf(config, n.dir, filepath.Join(bpffsDir, n.name), filepath.Join(root, n.name)) + fmt.Sprintf(configECS, n.engine.Host())
	if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if d.log, err = os.Create(filepath.Join(n.dir, "connectd.log")); err != nil {
		return nil, err
	}
	d.out = d.log
	if o.verbose {
		d.out = io.MultiWriter(d.log, verbose)
	}
	return d, nil
}

// start runs the daemon until it is ready.
func (d *daemon) start(ctx context.Context) error {
	cmd := exec.Command(d.binary, "run", "-c", d.config)
	cmd.Stdout, cmd.Stderr = d.out, d.out
	cmd.WaitDelay = time.Second
	if err := d.node.start(cmd); err != nil {
		return fmt.Errorf("start connectd: %w", err)
	}
	done := make(chan struct{})
	d.cmd, d.done = cmd, done
	go func() {
		d.err = cmd.Wait()
		close(done)
	}()
	return report.Until(ctx, 20*time.Second, func() error {
		select {
		case <-done:
			return fmt.Errorf("connectd run: %w: %v", report.ErrEnded, d.err)
		default:
		}
		s, err := d.Status(ctx)
		if err == nil && (s.PID != cmd.Process.Pid || len(s.NotReady) > 0) {
			err = fmt.Errorf("process %d answers, waiting for %v", s.PID, s.NotReady)
		}
		return err
	})
}

// stop ends the daemon with a signal, which it must obey within 10 s.
func (d *daemon) stop(ctx context.Context, signal syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := d.cmd
	d.cmd = nil
	cmd.Process.Signal(signal)
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("connectd did not end on %s: %w", signal, ctx.Err())
	}
}

// connectd runs a command of the binary.
func (d *daemon) connectd(ctx context.Context, args ...string) (string, error) {
	return d.node.output(ctx, d.binary, append(args, "-c", d.config)...)
}

// showLogs shows the ends of what the daemon and Docker wrote, before the files
// are removed.
func (d *demo) showLogs() {
	const most = 40
	if d.daemon != nil {
		text, _ := os.ReadFile(d.daemon.log.Name())
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		d.Line("\nThe end of connectd's log:")
		d.Show(strings.Join(lines[max(0, len(lines)-most):], "\n"), most)
	}
	if d.node != nil && d.node.engine != nil {
		d.Line("\nThe end of dockerd's log:")
		d.Show(d.node.engine.Log(10), 10)
	}
}
