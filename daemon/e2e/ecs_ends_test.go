package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"connectd/pkg/control"
	"connectd/pkg/testutil"
	"connectd/pkg/testutil/docker"
)

// TestECSEnds: a stopped task is forgotten, and its namespace goes with
// everything in it: nobody has it open, the daemon neither.
func TestECSEnds(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	tasks := []*docker.Task{
		i.task("awsvpc", "vpc", serves("vpc", 8080, ""), "serve", ":8080", "vpc"),
		i.spec(bridged("bridge", serves("bridge", 8080, ""), "serve", ":8080", "bridge")),
	}
	i.active("prod/vpc", 1)
	i.active("prod/bridge", 2)
	var inodes []uint64
	for _, task := range tasks {
		inodes = append(inodes, netnsOf(t, task.Containers[0].PID))
	}
	caller := i.task("awsvpc", "caller", callsOnly, "get", "http://vpc/")
	if got := i.output(caller, "main"); got != "vpc\n" {
		t.Errorf("it says %q", got)
	}
	if !i.holds(inodes[0]) {
		t.Error("the daemon does not hold the task's namespace open: the test looks wrongly")
	}
	for _, task := range tasks {
		if err := i.engine.StopTask(t.Context(), task, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	i.eventually(10*time.Second, func() error {
		for k, inode := range inodes {
			if testutil.NetnsAlive(inode) || i.holds(inode) {
				return fmt.Errorf("the namespace of %s is still there", tasks[k].Family)
			}
		}
		return errors.Join(i.forgot("vpc"), i.forgot("bridge"))
	})
}

// forgot is an error while tasks of a family are known, or the endpoints of a
// service of that name.
func (i *instance) forgot(name string) error {
	tasks, err := i.control().Tasks(context.Background())
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if strings.HasPrefix(t.Name, name+"/") {
			return fmt.Errorf("task %s is still there", t.Name)
		}
	}
	endpoints, err := i.control().Endpoints(context.Background(), control.EndpointFilter{})
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if e.Service == "prod/"+name {
			return fmt.Errorf("endpoint %s of %s is still there", e.Address, e.Service)
		}
	}
	return nil
}

func netnsOf(t *testing.T, pid int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// holds says whether the daemon has a namespace open.
func (i *instance) holds(inode uint64) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", i.daemon.cmd.Process.Pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "net:["+strconv.FormatUint(inode, 10)+"]" {
			return true
		}
	}
	return false
}

// TestECSRestarted: a container that its restart policy starts again is served
// and reached again: in bridge mode it has another namespace and host port.
func TestECSRestarted(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	s := bridged("orders", serves("orders", 8080, ""), "serve", ":8080", "orders")
	s.Containers[0].Restart = true
	task := i.spec(s)
	i.active("prod/orders", 2)
	if err := i.forgot("orders"); err == nil {
		t.Error("it is served and not known: the test looks wrongly")
	}
	before, old := i.endpoints("prod/orders"), netnsOf(t, task.Containers[0].PID)
	if err := syscall.Kill(task.Containers[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	i.eventually(20*time.Second, func() error {
		if i.forgot("orders") == nil {
			return errors.New("it is away")
		}
		now, err := i.known("prod/orders")
		if err != nil {
			return err
		}
		for at, e := range now {
			if _, ok := before[at]; ok || e.State != "active" {
				return fmt.Errorf("endpoint %s is %s, known before: %v", at, e.State, ok)
			}
		}
		return nil
	})
	caller := i.task("awsvpc", "caller", callsOnly, "get", "http://orders/")
	if got := i.output(caller, "main"); got != "orders\n" {
		t.Errorf("after the restart it says %q", got)
	}
	again, err := i.engine.ContainerInspect(t.Context(), task.Containers[0].ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if old == netnsOf(t, again.Container.State.Pid) || old == netnsOf(t, caller.Containers[0].PID) {
		return // a later namespace has its inode number: it was free
	}
	i.eventually(10*time.Second, func() error {
		if testutil.NetnsAlive(old) || i.holds(old) {
			return errors.New("its first namespace is still there")
		}
		return nil
	})
}

// hasProblem says whether the status has a problem with all the words.
func (i *instance) hasProblem(words ...string) bool {
	i.Helper()
problems:
	for _, p := range i.status().Problems {
		for _, w := range words {
			if !strings.Contains(p.Message, w) {
				continue problems
			}
		}
		return true
	}
	return false
}
