package cloudmap

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil/aws"
)

// writes lists what was registered and deregistered, as "register cd--orders t1".
func (w *world) writes() (out []string) {
	for _, r := range w.cloud.Requests() {
		if r.Action == "RegisterInstance" || r.Action == "DeregisterInstance" {
			out = append(out, r.Action+" "+r.Caller)
		}
	}
	return out
}

// TestOnlyOwnServicesAreWritten: a service that ECS made is never changed,
// whatever is offered under its name, and neither is a name like the index's.
func TestOnlyOwnServicesAreWritten(t *testing.T) {
	w := newWorld(t, -1)
	ecs := w.cloud.AddService(w.ns, "orders", true)
	w.cloud.AddInstance(ecs, "made-by-ecs", map[string]string{attrIPv4: "10.9.0.1", attrPort: "80"})
	before := w.cloud.Instances(w.ns)["orders"]
	a := w.node("i-a")
	o := a.offer("t1", "orders")
	for _, state := range []State{Healthy, Unhealthy, Draining, Healthy} {
		o.State = state
		a.Offer([]Offer{o, a.offer("t2", "index"), a.offer("t3", "index-a")}, true)
		w.run(time.Minute)
	}
	a.Offer(nil, true)
	w.run(time.Minute)
	a.GoAway()
	w.run(time.Minute)
	if got := w.cloud.Instances(w.ns)["orders"]; len(got) != 1 || len(got["made-by-ecs"]) != len(before["made-by-ecs"]) {
		t.Errorf("ECS's service has %v", got)
	}
	for _, name := range w.cloud.Services(w.ns) {
		if name != "orders" && !strings.HasPrefix(name, "cd--") {
			t.Errorf("a service %s was made", name)
		}
	}
	for _, name := range []string{"orders", "cd--", "cd-orders", "index", "xcd--orders", ""} {
		if a.writable(name) {
			t.Errorf("%q may be written", name)
		}
	}
	if !a.writable("cd--orders") || !a.writable("cd--index-a") {
		t.Error("our own services may not be written")
	}
}

// TestNothingIsWrittenUnlessAsked: register: false.
func TestNothingIsWrittenUnlessAsked(t *testing.T) {
	w := newWorld(t, -1)
	a := w.node("i-a", func(p *Params) { p.Register = false })
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Hour)
	if got := w.cloud.Services(w.ns); len(got) > 0 || len(w.writes()) > 0 {
		t.Errorf("written: %s %s", got, w.writes())
	}
}

// TestUpgrade: a restart knows what is its own and changes nothing; what has
// gone meanwhile is deregistered once all tasks are known, and not earlier.
func TestUpgrade(t *testing.T) {
	for _, kept := range []bool{true, false} {
		w := newWorld(t, -1)
		dir := t.TempDir()
		params := func(p *Params) { p.StateDir = dir }
		a := w.node("i-a", params)
		offers := []Offer{a.offer("t1", "orders"), a.offer("t2", "orders"), a.offer("t3", "cart")}
		a.Offer(offers, true)
		w.run(time.Minute)
		a.save(true)
		if !kept {
			params = func(*Params) {} // the disk was lost
		}
		a.start(params)
		written := len(w.writes())
		a.Offer(nil, false) // Docker has not answered
		w.run(time.Minute)
		pending := offers[0]
		pending.State = Pending // not probed yet by the new daemon
		a.Offer([]Offer{pending}, false)
		w.run(time.Minute)
		if got := w.writes()[written:]; kept && len(got) > 0 || slices.Contains(got, "DeregisterInstance i-a") {
			t.Fatalf("state kept %v: the upgrade wrote %s", kept, got)
		}
		offers[0].Share = new(int)
		*offers[0].Share = 50
		a.Offer(offers[:2], true)
		w.run(time.Minute)
		if got := w.registered("cd--orders"); !slices.Equal(got, []string{"t1", "t2"}) {
			t.Errorf("state kept %v: %s", kept, got)
		}
		if got := w.registered("cd--cart"); kept && got != nil {
			t.Errorf("a task that went during the upgrade: %s", got)
		}
		if kept {
			continue
		}
		// Without a memory it is recognised when its service is read.
		a.Demand("cart", []string{"prod"})
		w.run(time.Minute)
		if got := w.registered("cd--cart"); got != nil {
			t.Errorf("a task that went, its state lost: %s", got)
		}
	}
}

// TestZone: a node that learns where it is says so of what it has registered,
// once, and believes itself.
func TestZone(t *testing.T) {
	w := newWorld(t, -1)
	a := w.node("i-a", func(p *Params) { p.Zone, p.ZoneID = "", "" })
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	zone := func() string {
		in := w.cloud.Instances(w.ns)["cd--orders"]["t1"]
		return in[attrZoneName] + " " + in[attrZone]
	}
	if got := zone(); got != " " {
		t.Fatalf("registered in zone %q before it is known", got)
	}
	a.SetZone("us-east-1b", "use1-az2")
	w.run(time.Minute)
	if got := zone(); got != "us-east-1b use1-az2" {
		t.Errorf("registered in zone %q", got)
	}
	written := len(w.writes())
	a.SetZone("us-east-1b", "use1-az2")
	w.run(time.Minute)
	if got := w.writes()[written:]; len(got) > 0 {
		t.Errorf("the same zone wrote %s", got)
	}
	if a.learnZone("us-east-1b", "use1-az4"); a.zoneIDs["us-east-1b"] != "use1-az2" {
		t.Errorf("its own zone is %s, as another says", a.zoneIDs["us-east-1b"])
	}
}

// TestDamping: a probe that flaps does not write with every flap, and a
// draining task is not held up by it.
func TestDamping(t *testing.T) {
	w := newWorld(t, -1)
	a := w.node("i-a")
	o := a.offer("t1", "orders")
	a.Offer([]Offer{o}, true)
	w.run(time.Minute)
	before := a.calls("RegisterInstance")
	for i := range 60 {
		o.State = []State{Unhealthy, Healthy}[i%2]
		a.Offer([]Offer{o}, true)
		w.run(time.Second)
	}
	// Each write is one of the instance and one of the index.
	if got := a.calls("RegisterInstance") - before; got > 2*7 {
		t.Errorf("%d registrations in a minute", got)
	}
	o.State = Unhealthy
	a.Offer([]Offer{o}, true)
	w.run(time.Second)
	o.State = Draining
	a.Offer([]Offer{o}, true)
	w.run(2 * time.Second)
	if got := w.cloud.Instances(w.ns)["cd--orders"]["t1"][attrState]; got != stateDraining {
		t.Errorf("2 s after the stop signal the instance is %s", got)
	}
}

// TestRefusals: what Cloud Map would not take is refused as a whole, with a
// reason, and the rest goes on.
func TestRefusals(t *testing.T) {
	w := newWorld(t, -1)
	a := w.node("i-a")
	long := func(o *Offer) {
		for i := range 60 {
			o.Service.ClientAliases = append(o.Service.ClientAliases, lb.ClientAlias{DNSName: strings.Repeat("a", 50) + ".x", Port: uint16(i + 1)})
		}
	}
	offers := []Offer{
		a.offer("good", "orders"), a.offer("long", "orders", long), a.offer("n1", "index"), a.offer("n2", strings.Repeat("x", 60)),
		a.offer("n3", "bad-"), a.offer("a1", "orders", func(o *Offer) { o.V4 = netip.Addr{} }),
		a.offer("a2", "orders", func(o *Offer) { o.V4 = netip.MustParseAddr("127.0.0.1") }),
		a.offer("p0", "orders", func(o *Offer) { o.Port = 0 }), a.offer("good", "orders"), a.offer("i d", "orders"),
	}
	a.Offer(offers, true)
	w.run(time.Minute)
	want := []string{"a1 bad_address", "a2 bad_address", "good bad_id", "i d bad_id", "long too_large", "n1 bad_name", "n2 bad_name", "n3 bad_name", "p0 bad_address"}
	var got []string
	for _, p := range a.Problems() {
		got = append(got, p.ID+" "+p.Reason)
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems\n got %q\nwant %q", got, want)
	}
	if got := w.registered("cd--orders"); !slices.Equal(got, []string{"good"}) {
		t.Errorf("registered: %s", got)
	}
}

// TestWritesThatFail: an operation that is under way, a service at its quota,
// a service that somebody deleted, a namespace that is not there.
func TestWritesThatFail(t *testing.T) {
	w := newWorld(t, 10*time.Second)
	a := w.node("i-a")
	o := a.offer("t1", "orders")
	a.Offer([]Offer{o}, true)
	w.run(time.Second)
	o.State = Draining // while the registration is under way: DuplicateRequest
	a.Offer([]Offer{o}, true)
	w.within(time.Minute, "draining after the registration", func() bool {
		return w.cloud.Instances(w.ns)["cd--orders"]["t1"][attrState] == stateDraining
	})
	end := w.cloud.Inject(aws.Fault{Call: aws.Call{Service: aws.ServiceCloudMap, Action: "RegisterInstance"}, Kind: aws.Refuse, Code: "ResourceLimitExceeded"})
	a.Offer([]Offer{o, a.offer("t2", "orders")}, true)
	w.run(time.Minute)
	if p := a.Problems(); len(p) != 1 || p[0].ID != "t2" || p[0].Reason != problemFull {
		t.Errorf("problems %+v", p)
	}
	end()
	w.within(10*time.Minute, "registered when there is room", func() bool { return len(w.registered("cd--orders")) == 2 && len(a.Problems()) == 0 })

	b := w.node("i-b", func(p *Params) {
		p.Namespaces = func() []Namespace { return []Namespace{{Name: "typo"}} }
	})
	w.run(5 * time.Minute)
	if _, status := b.Snapshot(); status[0].Err == nil || !strings.Contains(status[0].Err.Error(), "no namespace of this name") {
		t.Errorf("status %+v", status)
	}
	if b.calls("CreateHttpNamespace") > 0 {
		t.Error("a namespace was created")
	}
	c := w.node("i-c", func(p *Params) {
		p.CreateNamespaces = true
		p.Namespaces = func() []Namespace { return []Namespace{{Name: "fresh"}} }
	})
	w.within(2*time.Minute, "the namespace is created", func() bool {
		_, status := c.Snapshot()
		return len(status) == 1 && status[0].Err == nil && !status[0].Loaded.IsZero()
	})
	if c.calls("CreateHttpNamespace") != 1 {
		t.Errorf("created %d times", c.calls("CreateHttpNamespace"))
	}
}

// TestGoAway: a node that is taken away drains first, then deregisters, and
// its entry goes last.
func TestGoAway(t *testing.T) {
	w := newWorld(t, time.Second)
	a, b := w.node("i-a"), w.node("i-b")
	a.Offer([]Offer{a.offer("t1", "orders"), a.offer("t2", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	a.GoAway()
	w.within(5*time.Second, "draining", func() bool {
		all := w.cloud.Instances(w.ns)["cd--orders"]
		return len(all) == 2 && all["t1"][attrState] == stateDraining && all["t2"][attrState] == stateDraining
	})
	w.within(15*time.Second, "b sees it", func() bool { return strings.Count(b.show("orders"), "=draining") == 2 })
	took := w.within(time.Minute, "deregistered", func() bool { return a.Left() == 0 })
	if took < 5*time.Second {
		t.Errorf("deregistered %s after draining was seen", took)
	}
	w.within(time.Minute, "entry gone", func() bool { return !slices.Contains(w.registered("cd--index"), "i-a") })
	a.Stay() // the notice was withdrawn
	w.within(time.Minute, "back", func() bool { return b.show("orders") != "" && !strings.Contains(b.show("orders"), "draining") })
}

// TestFullNode: a node full of tasks has them all registered at once, though
// its budget is small.
func TestFullNode(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	a := w.node("i-a")
	w.run(10 * time.Minute)
	var offers []Offer
	for i := range 100 {
		id := "t" + string(rune('a'+i/10)) + string(rune('a'+i%10))
		offers = append(offers, a.offer(id, "service-"+string(rune('a'+i%20)), func(o *Offer) { o.V4 = netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}) }))
	}
	a.Offer(offers, true)
	took := w.within(10*time.Second, "all registered", func() bool { return a.Stats().Registered == 100 })
	t.Logf("100 instances of 20 services after %s", took)
	took = w.within(time.Minute, "all seen", func() bool { return a.Stats().Seen == 100 })
	t.Logf("and seen %s later", took)
	if got := a.Stats().Tokens; got < -debt-1 {
		t.Errorf("a debt of %g", got)
	}
}
