package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOfPID is the CPU time that a process has used: its process CPU clock, as
// clock_getcpuclockid(3) makes it of a pid. It is utime + stime of
// /proc/PID/stat, in nanoseconds instead of ticks of 10 ms.
func cpuOfPID(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// process is a program that runs in a namespace until it is closed.
type process struct {
	cmd  *exec.Cmd
	said *tail
}

// startIn starts a program in a namespace. ip-netns execs, so the pid is the
// program's own.
func startIn(netns, name string, args ...string) (*process, error) {
	cmd := exec.Command("ip", append([]string{"netns", "exec", netns, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", name, netns, err)
	}
	return &process{cmd, said}, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// close ends the process. What it said matters only to whoever asks.
func (p *process) close() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// tail keeps the first bytes that a process said, for errors: the cause comes
// first.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailLimit = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b[:min(len(b), tailLimit-len(t.text))]...)
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// awaitListener waits until something listens, in the namespace that this runs
// in.
func awaitListener(address string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for a listener: %w", err)
		}
	}
}

// output runs a program in a namespace to its end.
func output(ctx context.Context, netns, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", netns, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
