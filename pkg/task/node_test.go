package task

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/task/docker"
	"connectd/pkg/testutil"
)

// TestNodeModes: containers are grouped into tasks, each known by its namespace
// or cgroup as its network mode has it.
func TestNodeModes(t *testing.T) {
	i := newInstance(t)
	a, b, c := i.w.Host("a"), i.w.Host("b"), i.w.Host("c")
	pa, _ := i.process(a, nil)
	pb, _ := i.process(b, nil)
	pc, _ := i.process(c, nil)
	top := testutil.NewCgroup(t)
	group := top.Child("aaaa4")
	first, second := group.Child("one"), group.Child("two")

	vpc := append(i.awsvpc("aaaa1", "vpc", pa, callsOnly()),
		i.container("aaaa1", "vpc", "side", "container:"+containerID("aaaa1", pausePrefix), pa))
	pause := i.container("aaaa2", "paused", pausePrefix+"-web", "bridge", pb)
	paused := []docker.Container{pause, label(i.container("aaaa2", "paused", "web", "container:"+pause.ID, pb), callsOnly())}
	bridge := []docker.Container{
		label(i.container("aaaa3", "bridge", "web", "bridge", pb), callsOnly()), i.container("aaaa3", "bridge", "db", "bridge", pc),
	}
	one := label(i.container("aaaa4", "host", "one", "host", os.Getpid()), callsOnly())
	two := i.container("aaaa4", "host", "two", "host", os.Getpid())
	one.Cgroup, two.Cgroup = first.Path(), second.Path()
	stranger := i.container("aaaa5", "stranger", "web", "bridge", pc)
	none := i.container("aaaa6", "none", "web", "bridge", pc)
	delete(none.Labels, labelTask)

	changed, settled := i.set(slices.Concat(vpc, paused, bridge, []docker.Container{one, two, stranger, none})...)
	if !changed || !settled {
		t.Errorf("changed %v, settled %v", changed, settled)
	}
	i.wantTasks("bridge/aaaa3/db bridge/aaaa3/web host/aaaa4 paused/aaaa2/web vpc/aaaa1")
	i.wantReasons("")
	for name, h := range map[string]*testutil.Host{"vpc/aaaa1": a, "paused/aaaa2/web": b, "bridge/aaaa3/web": b, "bridge/aaaa3/db": c} {
		want, err := cookie(h.NS())
		if err != nil {
			t.Fatal(err)
		}
		got := i.find(name)
		if got.NetnsCookie != want || got.CgroupID != 0 || !slices.Equal(got.Namespaces, []string{"prod"}) {
			t.Errorf("%s: %+v, want cookie %d", name, got, want)
		}
		if ns, ok := i.Namespace(name); !ok || ns.Inode() != h.NS().Inode() {
			t.Errorf("%s has namespace %v, %v", name, ns, ok)
		}
	}
	host := i.find("host/aaaa4")
	if host.CgroupID != group.ID() || host.NetnsCookie != 0 || host.CgroupLevel == 0 {
		t.Errorf("host task: %+v, want cgroup %d", host, group.ID())
	}
	if ns, ok := i.Namespace("host/aaaa4"); ns != nil || !ok {
		t.Errorf("host task has namespace %v, %v", ns, ok)
	}
	want := lb.ECSTask{ARN: clusterARN + "aaaa1", Cluster: "main", Family: "vpc", Revision: "3"}
	if e := i.find("vpc/aaaa1").ECS; e == nil || *e != want {
		t.Errorf("ECS says %+v", e)
	}
	if changed, _ := i.look(restInterval); changed {
		t.Error("nothing happened and it says that something changed")
	}
	i.set(vpc...)
	i.wantTasks("vpc/aaaa1")
}

// TestNodeHostAlone: a host container whose parent cgroup is not the task's
// own is known by its own cgroup, or its neighbours would be taken for it.
func TestNodeHostAlone(t *testing.T) {
	i := newInstance(t)
	g := testutil.NewCgroup(t).Child("one")
	c := label(i.container("bbbb1", "host", "one", "host", os.Getpid()), callsOnly())
	c.Cgroup = g.Path()
	i.set(c)
	i.wantTasks("host/bbbb1/one")
	if got := i.find("host/bbbb1/one").CgroupID; got != g.ID() {
		t.Errorf("known by cgroup %d, want %d", got, g.ID())
	}
	// Where its cgroup is not known (yet) the task waits, and the other goes on.
	unknown := label(i.container("bbbb2", "host", "one", "host", os.Getpid()), callsOnly())
	i.set(c, unknown)
	i.wantTasks("host/bbbb1/one")
	i.wantReasons("host/bbbb2 namespace_unreachable")
}

// TestNodeEarly: while the first process of a container is still in the node's
// namespace, or still sees the node's files, there is no task, and it is looked
// for again soon.
func TestNodeEarly(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	c := label(i.container("cccc1", "early", "web", "bridge", os.Getpid()), callsOnly())
	c.State, c.Started = docker.Created, time.Time{}
	check := func(what, want string) {
		t.Helper()
		i.now = i.now.Add(restInterval)
		if _, settled := i.set(c); settled != (want != "") {
			t.Errorf("%s: settled %v", what, settled)
		}
		i.wantTasks(want)
		i.wantReasons("")
	}
	check("in the node's namespace", "")
	c.PID, c.ResolvConfPath = pid, ""
	check("with the node's root", "") // the process of the test shares it
	c.ResolvConfPath = filepath.Join(t.TempDir(), "resolv.conf")
	check("before Docker wrote its resolv.conf", "")
	write(t, c.ResolvConfPath, "10.0.0.9")
	check("ready", "early/cccc1/web")
	if got := i.find("early/cccc1/web").Resolvers; !slices.Equal(got, []netip.Addr{netip.MustParseAddr("10.0.0.9")}) {
		t.Errorf("resolvers are %v", got)
	}
	// What Docker tells once it has started does not make it another task.
	before := i.find("early/cccc1/web")
	c.State, c.Started = docker.Running, i.now
	if changed, _ := i.set(c); changed {
		t.Errorf("its start changed the task: %+v, before %+v", i.find("early/cccc1/web"), before)
	}
}

// TestNodeServes: an endpoint is pending until somebody listens, and what keeps
// it from being reached is reported.
func TestNodeServes(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	at := fmt.Sprintf("prod/orders=%s:8080 ", h.Addr4())
	list := i.awsvpc("dddd1", "orders", pid, serves("orders"))
	if _, settled := i.set(list...); settled {
		t.Error("settled while a port is awaited")
	}
	i.wantServed(at + "pending")
	i.wantReasons("") // it has just started

	l := h.Listen("tcp", "127.0.0.1:8080")
	i.look(restInterval)
	i.wantServed(at + "pending")
	i.wantReasons("orders/dddd1 loopback_only")
	l.Close()

	i.look(restInterval)
	i.wantReasons("") // it may be on its way to the other address
	i.look(listenGrace)
	i.wantReasons("orders/dddd1 not_listening")

	l = h.Listen("tcp", "0.0.0.0:8080")
	if changed, settled := i.look(time.Minute); !changed || !settled {
		t.Errorf("it listens: changed %v, settled %v", changed, settled)
	}
	i.wantServed(at + "healthy")
	i.wantReasons("")
	part := i.Services()[0]
	if i.look(time.Minute); i.Services()[0] != part {
		t.Error("what is served was made anew with nothing changed")
	}
	if e := part.Endpoints[0]; e.Task != "orders/dddd1" || e.Zone != "use1-az1" || e.Weight != 1 {
		t.Errorf("endpoint is %+v", e)
	}
	l.Close()
	i.look(time.Minute)
	i.wantServed(at + "pending")
	i.wantReasons("") // it has just ended, or is starting anew
	i.look(listenGrace)
	i.wantReasons("orders/dddd1 not_listening")
	list[1].Stopping = true
	i.set(list...)
	i.wantReasons("") // it need not any more
	// Each problem is reported once as long as it stands, and again when it
	// comes back.
	got := []string{}
	for _, p := range i.reported {
		got = append(got, p.Reason)
	}
	if want := []string{"loopback_only", "not_listening", "not_listening"}; !slices.Equal(got, want) {
		t.Errorf("reported %v, want %v", got, want)
	}
}

// TestNodeHealth: a container's own check decides, but one that asks connectd
// itself does not, and one that never was well is not called dead.
func TestNodeHealth(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	h.Listen("tcp", "0.0.0.0:8080")
	list := i.awsvpc("eeee1", "orders", pid, serves("orders"))
	at := fmt.Sprintf("prod/orders=%s:8080 ", h.Addr4())
	step := func(health, want string) {
		t.Helper()
		list[1].Health = health
		i.set(slices.Clone(list)...)
		i.wantServed(at + want)
	}
	step("starting", "pending")
	step("unhealthy", "pending")
	step("healthy", "healthy")
	step("unhealthy", "unhealthy")
	step("", "healthy")
	list[1].ChecksReadiness = true
	for _, health := range []string{"starting", "unhealthy", "healthy"} {
		step(health, "healthy")
	}
	probed := i.awsvpc("eeee1", "orders", pid, serves("orders"))
	probed[1].ID += "x" // another container, or its labels would not be read again
	probed[1].Labels["connectd.service"] = `{"healthCheck": {"protocol": "tcp"}}`
	i.set(probed...)
	i.wantServed(at + "nothing") // probes say
}

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

// TestNodePublished: in bridge mode others reach the node's address and the
// host port, by address family, and with none published this node alone.
func TestNodePublished(t *testing.T) {
	i := newInstance(t)
	h := i.host("a")
	pid, _ := i.process(h, nil)
	h.Listen("tcp", "0.0.0.0:8080")
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	four, six := netip.MustParseAddr("10.66.0.250"), netip.MustParseAddr("fd66::250")
	port := func(at netip.Addr, host uint16) docker.Port {
		return docker.Port{Container: 8080, Protocol: "tcp", HostAddr: at, Host: host}
	}
	for _, test := range []struct {
		name  string
		node  Addresses
		ports []docker.Port
		want  string
	}{
		{"IPv4", Addresses{V4: four}, []docker.Port{port(any4, 1000)}, "prod/orders=10.66.0.250:1000 healthy"},
		{"both", Addresses{V4: four, V6: six}, []docker.Port{port(any4, 1000), port(any6, 1001)},
			"prod/orders=10.66.0.250:1000 healthy, prod/orders=[fd66::250]:1001 healthy"},
		{"IPv6 alone", Addresses{V4: four, V6: six}, []docker.Port{port(any6, 1001)}, "prod/orders=[fd66::250]:1001 healthy"},
		{"the node has no IPv6", Addresses{V4: four}, []docker.Port{port(any4, 1000), port(any6, 1001)}, "prod/orders=10.66.0.250:1000 healthy"},
		{"one address", Addresses{V4: four}, []docker.Port{port(four, 1000)}, "prod/orders=10.66.0.250:1000 healthy"},
		{"127.0.0.1", Addresses{V4: four}, []docker.Port{port(netip.MustParseAddr("127.0.0.1"), 1000)},
			fmt.Sprintf("prod/orders=%s:8080 healthy", h.Addr4())},
		{"UDP", Addresses{V4: four}, []docker.Port{{Container: 8080, Protocol: "udp", HostAddr: any4, Host: 1000}},
			fmt.Sprintf("prod/orders=%s:8080 healthy", h.Addr4())},
		{"another port", Addresses{V4: four}, []docker.Port{{Container: 80, Protocol: "tcp", HostAddr: any4, Host: 1000}},
			fmt.Sprintf("prod/orders=%s:8080 healthy", h.Addr4())},
	} {
		i.set()
		i.address = test.node
		c := label(i.container("acac1", "orders", "web", "bridge", pid), serves("orders"))
		c.Ports = test.ports
		i.set(c)
		if got := i.served(); got != test.want {
			t.Errorf("%s: served %q, want %q", test.name, got, test.want)
		}
		reason := ""
		if strings.HasSuffix(test.want, ":8080 healthy") {
			reason = "orders/acac1 not_published"
		}
		if got := i.reasons(); got != reason {
			t.Errorf("%s: problems %q, want %q", test.name, got, reason)
		}
	}
	// Until Docker has said what it publishes nothing is served, nor reported.
	early := label(i.container("acac3", "orders", "web", "bridge", pid), serves("orders"))
	early.PortsKnown = false
	i.reported = nil
	i.set(early)
	i.wantServed("")
	i.wantReasons("")
	// A pause container publishes for the one that serves.
	pause := i.container("acac2", "orders", pausePrefix+"-web", "bridge", pid)
	pause.Ports = []docker.Port{port(any4, 1002)}
	i.address = Addresses{V4: four}
	i.set(pause, label(i.container("acac2", "orders", "web", "container:"+pause.ID, pid), serves("orders")))
	i.wantServed("prod/orders=10.66.0.250:1002 healthy")
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
