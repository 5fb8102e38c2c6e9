package testutil

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"connectd/pkg/netns"

	"golang.org/x/sys/unix"
)

// Cmd is an exec.Cmd that starts inside a host. Its own Start, Run, Output and
// CombinedOutput must be used: those of exec.Cmd would start it outside.
type Cmd struct {
	*exec.Cmd
	host *Host
}

// Command prepares a program that runs in the host's namespace, with the files
// of /etc/netns/<name> over those of /etc as `ip netns exec` has it. It leads
// a process group of its own. It and its group are killed when ctx or the host
// ends, and the program itself by the kernel when the test process dies.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	return &Cmd{Cmd: cmd, host: h}
}

// In starts the program inside of a cgroup (needs Linux 5.7).
func (c *Cmd) In(g *Cgroup) *Cmd {
	c.SysProcAttr.UseCgroupFD = true
	c.SysProcAttr.CgroupFD = int(g.dir.Fd())
	return c
}

// Start starts the program and does not wait for it.
func (c *Cmd) Start() error {
	if err := c.host.spawn.start(c.host, c.Cmd); err != nil {
		return err
	}
	pid := c.Process.Pid
	c.host.OnClose(func() { syscall.Kill(-pid, syscall.SIGKILL) })
	return nil
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output. As with exec.Cmd,
// an *exec.ExitError carries standard error.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		exit.Stderr = stderr.Bytes()
	}
	return stdout.Bytes(), err
}

// CombinedOutput runs the program and returns all it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// ResolvConf gives programs that the host starts from now on an
// /etc/resolv.conf of their own, and returns the path of the file.
func (h *Host) ResolvConf(content string) string { return h.EtcFile("resolv.conf", content) }

// EtcFile is ResolvConf for any file that exists in /etc, such as hosts.
func (h *Host) EtcFile(name, content string) string {
	h.tb.Helper()
	dir := filepath.Join(netnsEtcDir, h.NetnsName())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.tb.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.tb.Fatal(err)
	}
	return path
}

// spawner starts programs from one OS thread that lives as long as its host
// and stays in the host's namespaces. A thread of the Go runtime will not do:
// the death signal fires when the thread that forked ends, and threads that
// ran netns.Handle.Do end at any time.
type spawner struct {
	once sync.Once
	mu   sync.Mutex // guards jobs against a send after close
	jobs chan func()
	done chan struct{}
}

func (s *spawner) start(h *Host, cmd *exec.Cmd) error {
	var err error
	s.once.Do(func() { err = s.run(h.path) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs == nil {
		return fmt.Errorf("start %s: host %s is closed", cmd.Path, h.name)
	}
	started := make(chan error)
	s.jobs <- func() {
		err := bindEtc(h.NetnsName())
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}
	return <-started
}

// run makes the thread and has it enter the namespace at path.
func (s *spawner) run(path string) error {
	jobs, done := make(chan func()), make(chan struct{})
	entered := make(chan error)
	go func() {
		defer close(done)
		netns.OnThread(func() error {
			f, err := os.Open(path)
			if err == nil {
				err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
				f.Close()
			}
			entered <- err
			if err != nil {
				return err
			}
			for job := range jobs {
				job()
			}
			return nil
		})
	}()
	if err := <-entered; err != nil {
		return fmt.Errorf("enter netns %s: %w", path, err)
	}
	s.jobs, s.done = jobs, done
	return nil
}

// close ends the thread, and by the death signal whatever it started.
func (s *spawner) close() {
	s.once.Do(func() {})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs != nil {
		close(s.jobs)
		<-s.done
		s.jobs = nil
	}
}

// bindEtc mounts the files of /etc/netns/<name> over those in /etc for the
// calling thread and the programs it starts. The thread has the machine's
// mounts until the first file appears: a private copy of them would hold other
// namespaces' bindings.
func bindEtc(name string) error {
	dir := filepath.Join(netnsEtcDir, name)
	files := namesIn(dir)
	if len(files) == 0 {
		return nil
	}
	var own, main unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/mnt", &own); err != nil {
		return err
	}
	if err := unix.Stat("/proc/self/ns/mnt", &main); err != nil {
		return err
	}
	if own.Ino == main.Ino {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	for _, file := range files {
		from, to := filepath.Join(dir, file), filepath.Join("/etc", file)
		var src, dst unix.Stat_t
		if err := unix.Stat(from, &src); err != nil {
			return fmt.Errorf("stat %s: %w", from, err)
		}
		if unix.Stat(to, &dst) == nil && src.Ino == dst.Ino && src.Dev == dst.Dev {
			continue
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s over %s: %w", from, to, err)
		}
	}
	return nil
}
