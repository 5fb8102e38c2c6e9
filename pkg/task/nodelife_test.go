package task

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"connectd/pkg/task/docker"
	"connectd/pkg/testutil"
)

// TestNodeDrain: with the first stop signal the whole task drains, and goes on
// doing so while its containers end one by one, until one starts again.
func TestNodeDrain(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	h.Listen("tcp", "0.0.0.0:8080")
	at := fmt.Sprintf("prod/orders=%s:8080 healthy", h.Addr4())
	list := append(i.awsvpc("ffff1", "orders", pid, serves("orders")),
		i.container("ffff1", "orders", "side", "container:"+containerID("ffff1", pausePrefix), pid))
	i.set(slices.Clone(list)...)
	i.wantServed(at)
	list[2].Stopping = true // ECS stops the others within moments
	i.set(slices.Clone(list)...)
	i.wantServed(at + " draining")
	list[2] = exited(list[2])
	i.set(slices.Clone(list)...)
	i.wantServed(at + " draining")
	if changed, _ := i.look(time.Second); changed {
		t.Error("it goes on draining and says that something changed")
	}
	i.now = i.now.Add(10 * time.Second)
	list[2].State, list[2].PID, list[2].Started, list[2].Stopping = docker.Running, pid, i.now, false
	i.set(slices.Clone(list)...)
	i.wantServed(at)
	// Until it is drained: the container that serves has ended.
	list[1] = exited(list[1])
	i.set(slices.Clone(list)...)
	i.wantServed("")
}

// exited is the container after its end, as the watcher tells of it.
func exited(c docker.Container) docker.Container {
	c.State, c.PID, c.Cgroup, c.Health = docker.Exited, 0, "", ""
	return c
}

// TestNodeRestart: a container that its policy restarted is the same task with
// the new namespace, and the old one is let go of.
func TestNodeRestart(t *testing.T) {
	i := newInstance(t)
	a, b := i.host("a"), i.host("b")
	pa, endA := i.process(a, nil)
	pb, _ := i.process(b, nil)
	b.Listen("tcp", "0.0.0.0:8080")
	i.address = Addresses{V4: netip.MustParseAddr("10.66.0.250")}
	c := label(i.container("abab1", "orders", "web", "bridge", pa), serves("orders"))
	c.Ports = []docker.Port{{Container: 8080, Protocol: "tcp", HostAddr: netip.IPv4Unspecified(), Host: 32768}}
	i.set(c)
	first := i.find("orders/abab1/web")
	inode := a.NS().Inode()
	endA()

	c = exited(c)
	c.State = docker.Created // it waits for its turn
	i.set(c)
	i.wantTasks("")
	i.wantServed("")
	a.Close()
	if err := alive(inode); err != nil {
		t.Error(err)
	}
	c.State, c.PID, c.Started, c.Restarts = docker.Running, pb, i.now.Add(time.Second), 1
	c.Ports = []docker.Port{{Container: 8080, Protocol: "tcp", HostAddr: netip.IPv4Unspecified(), Host: 32769}}
	if changed, _ := i.set(c); !changed {
		t.Error("it is back and nothing changed")
	}
	second := i.find("orders/abab1/web")
	if second.NetnsCookie == first.NetnsCookie || second.NetnsPath == first.NetnsPath {
		t.Errorf("it is still where it was: %+v", second)
	}
	i.wantServed("prod/orders=10.66.0.250:32769 healthy")
}

// TestNodeHandles: a Node that ran, with tasks that came and went, holds nothing
// once it has ended.
func TestNodeHandles(t *testing.T) {
	before := descriptors(t)
	i := newInstance(t)
	h := i.host("a")
	held := descriptors(t) // those of the world
	pid, _ := i.process(h, nil)
	news := make(chan struct{}, 1)
	i.Changed = func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	i.list = i.awsvpc("adad1", "orders", pid, callsOnly())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	<-i.Found()
	<-news
	if len(i.Tasks()) != 1 || descriptors(t) != held+1 {
		t.Errorf("tasks %q, %d namespaces held, want %d", i.names(), descriptors(t), held+1)
	}
	if ns, ok := i.ByCookie(i.Tasks()[0].NetnsCookie); !ok || ns.Inode() != h.NS().Inode() {
		t.Errorf("by its cookie: %v %v", ns, ok)
	}
	i.mu.Lock()
	i.list = nil
	i.mu.Unlock()
	i.Look()
	<-news
	testutil.Eventually(t, 5*time.Second, func() error {
		if n := descriptors(t); n != held {
			return fmt.Errorf("%d namespaces held after the task's end, want %d", n, held)
		}
		return nil
	})
	i.mu.Lock()
	i.list = i.awsvpc("adad2", "orders", pid, callsOnly())
	i.mu.Unlock()
	i.Look()
	<-news
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := descriptors(t); n != held {
		t.Errorf("%d namespaces held after Run, want %d (%d before)", n, held, before)
	}
	if _, ok := i.Namespace("orders/adad2"); ok {
		t.Error("after Run a namespace is handed out")
	}
}

// TestNodeMany: 500 tasks at once, one of them bad in every way, are all known
// within moments, and one that changes does not cost as much as all.
func TestNodeMany(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	h.Listen("tcp", "0.0.0.0:8080")
	const count = 500
	var list []docker.Container
	for k := range count {
		list = append(list, i.awsvpc(fmt.Sprintf("%032x", k), "many", pid, serves(fmt.Sprintf("s%d", k)))...)
	}
	bad := i.awsvpc("bad0", "bad", pid, map[string]string{"connectd.serviceConnect": `{"enabled": 1}`})
	gone := i.awsvpc("bad1", "bad", 1<<22+1, serves("gone")) // no such process
	list = slices.Concat(list, bad, gone)
	begun := time.Now()
	i.set(slices.Clone(list)...)
	all := time.Since(begun)
	if got := len(i.Tasks()); got != count {
		t.Errorf("%d tasks, want %d: %s", got, count, i.reasons())
	}
	if got := len(i.Services()); got != count {
		t.Errorf("%d services, want %d", got, count)
	}
	i.wantReasons("bad/bad0 invalid_field")
	looks := 0
	i.ResolvConf = func(path string) ([]netip.Addr, []string, error) {
		looks++
		return readLines(path)
	}
	begun = time.Now()
	for k := range 20 {
		list[2*k+1].Stopping = true
		i.set(slices.Clone(list)...)
	}
	one := time.Since(begun) / 20
	t.Logf("%d tasks at once: %s; one that changes among them: %s", count, all, one)
	if looks < 20 || looks > 60 { // the one without a process is looked at too
		t.Errorf("20 tasks changed and %d were looked at", looks)
	}
	looks = 0
	if changed, _ := i.look(restInterval); changed || looks > 1 {
		t.Errorf("a second later: changed %v, %d looked at", changed, looks)
	}
	if changed, _ := i.look(count * time.Second / looksPerSecond); changed || looks < count {
		t.Errorf("5 seconds later: changed %v, %d looked at", changed, looks)
	}
}

// TestNodeArriving: the containers of a task come one by one and go one by one,
// and what the labels of one say of another is not wrong meanwhile.
func TestNodeArriving(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	h.Listen("tcp", "0.0.0.0:8080")
	labels := serves("orders")
	ports := map[string]string{"connectd.ports": labels["connectd.ports"]}
	labels["connectd.ports"] = `[{"name": "other", "containerPort": 9090}]`
	list := i.awsvpc("abcd1", "orders", pid, labels)
	side := label(i.container("abcd1", "orders", "side", "container:"+containerID("abcd1", pausePrefix), pid), ports)
	at := fmt.Sprintf("prod/orders=%s:8080 healthy", h.Addr4())

	i.set(slices.Clone(list)...)
	i.wantTasks("orders/abcd1")
	i.wantServed("")
	i.wantReasons("")
	if got := i.Waiting("orders/abcd1"); got == "" {
		t.Error("a task without its second container is ready")
	}
	i.set(append(slices.Clone(list), side)...)
	i.wantServed(at)
	if got := i.Waiting("orders/abcd1"); got != "" {
		t.Errorf("complete, it waits: %s", got)
	}
	i.set(list[0], side) // the first is removed, as ECS does in the end
	i.wantReasons("")
	i.wantServed(at)

	// The other way round: what is said of nothing yet.
	i.set(i.container("abcd2", "orders", pausePrefix, "none", pid), label(i.container("abcd2", "orders", "side", "container:"+containerID("abcd2", pausePrefix), pid), ports))
	i.wantReasons("")
	i.wantServed("")

	list = i.awsvpc("abcd3", "orders", pid, labels)
	i.set(slices.Clone(list)...)
	i.wantReasons("")
	i.look(arrivalTime)
	i.wantReasons("orders/abcd3 unknown_port")
	i.wantTasks("")
}
