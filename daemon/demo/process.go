package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"connectd/daemon/demo/report"
)

// process is a program that runs until it is stopped.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how; valid after done
}

// run starts a program whose output goes to log.
func (p *place) run(log io.Writer, name string, args ...string) (*process, error) {
	path, err := lookPath(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if p.env != nil {
		cmd.Env = append(os.Environ(), p.env...)
	}
	return p.watch(cmd)
}

// watch starts a program and waits for its end in a goroutine, which ends with
// the program.
func (p *place) watch(cmd *exec.Cmd) (*process, error) {
	cmd.WaitDelay = time.Second
	if err := p.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	pr := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		pr.err = cmd.Wait()
		close(pr.done)
	}()
	return pr, nil
}

func (pr *process) pid() int { return pr.cmd.Process.Pid }

func (pr *process) ended() bool {
	select {
	case <-pr.done:
		return true
	default:
		return false
	}
}

// stop sends a signal to the program's group and waits for its end; what is
// still there when ctx ends, or after 5 s, is killed. The error says how it
// ended, if not with exit status 0.
func (pr *process) stop(ctx context.Context, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !pr.ended() {
		syscall.Kill(-pr.pid(), sig)
	}
	select {
	case <-pr.done:
		return pr.err
	case <-ctx.Done():
		syscall.Kill(-pr.pid(), syscall.SIGKILL)
		<-pr.done
		return fmt.Errorf("process %d did not end on %s: %w", pr.pid(), sig, ctx.Err())
	}
}

// running is report.ErrEnded with its exit status, or nil.
func (pr *process) running() error {
	if pr.ended() {
		return fmt.Errorf("%w: %v", report.ErrEnded, pr.err)
	}
	return nil
}
