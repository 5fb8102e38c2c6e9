package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// process is one run of the daemon.
type process struct {
	tb   testing.TB
	cmd  *testutil.Cmd
	log  string // path of its output
	done chan struct{}
	err  error // after done
}

// spawn starts the daemon and does not wait until it is ready.
func (n *node) spawn() *process {
	n.Helper()
	n.runs++
	p := &process{tb: n, log: n.path(fmt.Sprintf("log.%d", n.runs)), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		n.Fatal(err)
	}
	defer out.Close()
	args := append(slices.Clone(n.wrapper), n.program(), "run", "--config", n.path("connectd.yaml"))
	p.cmd = n.host.Command(context.Background(), args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), n.env...)
	if err := p.cmd.Start(); err != nil {
		n.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	n.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.done
		p.review()
	})
	n.daemon = p
	return p
}

// start starts the daemon and waits until it is ready.
func (n *node) start() *process {
	n.Helper()
	p := n.spawn()
	n.ready()
	return p
}

func (n *node) ready() {
	n.Helper()
	p := n.daemon
	n.eventually(30*time.Second, func() error {
		select {
		case <-p.done:
			n.Fatalf("daemon ended: %v\n%s", p.err, p.output())
		default:
		}
		s, err := n.control().Status(context.Background())
		if err != nil {
			return err
		}
		if s.PID != p.cmd.Process.Pid {
			return fmt.Errorf("pid %d answers, want %d", s.PID, p.cmd.Process.Pid)
		}
		if len(s.NotReady) > 0 {
			return fmt.Errorf("waiting for %v", s.NotReady)
		}
		return nil
	})
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// stop ends the daemon in good order.
func (p *process) stop() {
	p.tb.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.signal(syscall.SIGQUIT)
		<-p.done
		p.tb.Fatalf("daemon did not end after SIGTERM\n%s", p.output())
	}
	if p.err != nil {
		p.tb.Errorf("daemon ended: %s", p.err)
	}
}

// kill ends it as a crash does.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	return string(b[max(0, len(b)-most):])
}

// review fails the test for what no daemon may ever write, and shows the log
// of one that failed otherwise.
func (p *process) review() {
	b, _ := os.ReadFile(p.log)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "goroutine 1 ["} {
		if bytes.Contains(b, []byte(bad)) {
			p.tb.Errorf("the daemon's log has %q:\n%s", bad, b[:min(len(b), 16<<10)])
			return
		}
	}
	if p.tb.Failed() {
		p.tb.Logf("log of daemon %d:\n%s", p.cmd.Process.Pid, p.output())
	}
}

// logged reports whether the daemon has written a line with all the words.
func (p *process) logged(words ...string) bool {
	b, _ := os.ReadFile(p.log)
	for line := range strings.Lines(string(b)) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}
