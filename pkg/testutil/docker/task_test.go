package docker

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectd/pkg/netns"
	"connectd/pkg/testutil"
)

// echo is a container that says its name to whoever connects to its port.
func echo(name string, port int) ContainerSpec {
	return ContainerSpec{
		Name: name, Image: "busybox", Ports: []Port{{Container: uint16(port)}},
		Cmd: []string{"/bin/sh", "-c", fmt.Sprintf("exec busybox nc -ll -p %d -e echo I am %s", port, name)},
	}
}

// says asks who answers at an address, from a namespace, until somebody does.
func says(t *testing.T, from *netns.Handle, address, want string) {
	t.Helper()
	testutil.Eventually(t, 10*time.Second, func() error {
		var conn net.Conn
		err := from.Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", address, time.Second)
			return err
		})
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		text, err := io.ReadAll(conn)
		if got := strings.TrimSpace(string(text)); got != "I am "+want {
			return fmt.Errorf("%s answers %q, %v", address, got, err)
		}
		return nil
	})
}

// inside opens a container's network namespace.
func inside(t *testing.T, c Container) *netns.Handle {
	t.Helper()
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestTasks: tasks of each network mode are arranged as the agent does it, and
// reach one another as on an instance.
func TestTasks(t *testing.T) {
	e := Start(t, Options{})
	image(t, e, "busybox", Config{})
	start := func(s TaskSpec) *Task {
		t.Helper()
		task, err := e.Task(t.Context(), s)
		if err != nil {
			t.Fatalf("%s\n%s", err, e.Log(10))
		}
		return task
	}
	a := start(TaskSpec{NetworkMode: "awsvpc", Family: "a", Containers: []ContainerSpec{echo("a", 80), echo("side", 81)}})
	b := start(TaskSpec{NetworkMode: "awsvpc", Family: "b", Containers: []ContainerSpec{echo("b", 80)}})
	plain := start(TaskSpec{NetworkMode: "bridge", Containers: []ContainerSpec{echo("plain", 80)}})
	paused := start(TaskSpec{NetworkMode: "bridge", Pause: true, Containers: []ContainerSpec{echo("paused", 80)}})
	host := start(TaskSpec{NetworkMode: "host", Containers: []ContainerSpec{echo("host", 8181)}})

	if len(a.Pauses) != 1 || len(plain.Pauses) != 0 || len(paused.Pauses) != 1 || len(host.Pauses) != 0 {
		t.Errorf("pause containers: %d %d %d %d", len(a.Pauses), len(plain.Pauses), len(paused.Pauses), len(host.Pauses))
	}
	at := func(addr fmt.Stringer, port uint16) string { return fmt.Sprintf("%s:%d", addr, port) }
	says(t, inside(t, b.Containers[0]), at(a.Addr.Addr(), 80), "a")
	says(t, inside(t, b.Containers[0]), "127.0.0.1:80", "b")
	says(t, inside(t, a.Containers[0]), "127.0.0.1:81", "side")
	says(t, e.NS(), at(a.Addr.Addr(), 80), "a")
	says(t, e.NS(), at(plain.Containers[0].Addr, 80), "plain")
	says(t, e.NS(), "127.0.0.1:8181", "host")
	says(t, inside(t, a.Containers[0]), "10.77.0.1:8181", "host")
	for _, task := range []*Task{plain, paused} {
		port := task.Containers[0].Host[80]
		if port == 0 {
			t.Errorf("no host port: %+v", task.Containers[0])
		}
		says(t, e.NS(), at(e.net.Router, port), task.Containers[0].Name)
	}

	if err := e.StopTask(t.Context(), a, 0); err != nil {
		t.Error(err)
	}
	for _, task := range []*Task{b, plain, paused, host} {
		if err := e.StopTask(t.Context(), task, time.Second); err != nil {
			t.Error(err)
		}
	}
}

// TestInWorld: an engine whose node and tasks are hosts of a testutil.World.
func TestInWorld(t *testing.T) {
	w := testutil.NewWorld(t)
	node, other := w.Host("node"), w.Host("other")
	e := Start(t, Options{NS: node.NS(), Network: Network{
		NS: w.NS(), Bridge: "br0", First: netip24(100), Router: netip24(1).Addr(),
	}})
	image(t, e, "busybox", Config{})
	task, err := e.Task(t.Context(), TaskSpec{NetworkMode: "awsvpc", Containers: []ContainerSpec{echo("web", 80)}})
	if err != nil {
		t.Fatal(err)
	}
	if task.Addr != netip24(100) {
		t.Errorf("address %s", task.Addr)
	}
	says(t, other.NS(), "10.66.0.100:80", "web")
	published, err := e.Task(t.Context(), TaskSpec{NetworkMode: "bridge", Containers: []ContainerSpec{echo("pub", 80)}})
	if err != nil {
		t.Fatal(err)
	}
	says(t, other.NS(), fmt.Sprintf("%s:%d", node.Addr4(), published.Containers[0].Host[80]), "pub")
}

func netip24(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 66, 0, n}), 24)
}
