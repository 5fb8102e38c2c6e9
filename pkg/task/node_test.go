package task

import (
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
	i.SetZone("use1-az2")
	if changed, _ := i.look(0); !changed || i.Services()[0].Endpoints[0].Zone != "use1-az2" {
		t.Errorf("the node's zone is another: changed %v, endpoint %+v", changed, i.Services()[0].Endpoints[0])
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
