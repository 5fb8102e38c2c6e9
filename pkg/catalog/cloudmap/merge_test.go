package cloudmap

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"connectd/pkg/lb"
	"connectd/pkg/testutil/aws"
)

// shares sums the weights of endpoints in 10.9.0.0/16, which are ECS's, and of
// the others, leaving out draining ones.
func shares(s *lb.Service) (ours, theirs int) {
	for _, e := range s.Endpoints {
		switch {
		case e.Draining:
		case e.Address.Addr().As4()[1] == 9:
			theirs += int(e.Weight)
		default:
			ours += int(e.Weight)
		}
	}
	return ours, theirs
}

// TestMoveTraffic: a service half on Service Connect, half on connectd, is one
// name, and its traffic moves by one command for all nodes.
func TestMoveTraffic(t *testing.T) {
	w := newWorld(t, -1)
	ecs := w.cloud.AddService(w.ns, "orders", false)
	for i := range 3 {
		w.cloud.AddInstance(ecs, fmt.Sprintf("e%d", i), map[string]string{attrIPv4: fmt.Sprintf("10.9.0.%d", i+1), attrPort: "8080", attrZoneName: "us-east-1a"})
	}
	a, b := w.node("i-a"), w.node("i-b")
	a.Offer([]Offer{a.offer("t1", "orders"), a.offer("t2", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	s := b.service("orders")
	if ours, theirs := shares(s); ours != 2 || theirs != 3 {
		t.Fatalf("weights %d and %d of %v", ours, theirs, s.Endpoints)
	}
	if s.Endpoints[4].Zone != "use1-az1" {
		t.Errorf("the zone of an instance of ECS, which names it us-east-1a, is %q", s.Endpoints[4].Zone)
	}
	index := w.cloud.AddService(w.ns, "cd--index", false)
	for _, percent := range []int{1, 10, 50, 99, 100, 30, 0} {
		w.cloud.AddInstance(index, "weights", map[string]string{"orders": fmt.Sprint(percent)})
		w.run(15 * time.Second)
		ours, theirs := shares(b.service("orders"))
		if got := float64(ours) / float64(ours+theirs) * 100; got < float64(percent)-0.01 || got > float64(percent)+0.01 {
			t.Errorf("%d %%: weights %d and %d", percent, ours, theirs)
		}
		if len(b.service("orders").Endpoints) != 5 {
			t.Errorf("%d %%: %d endpoints", percent, len(b.service("orders").Endpoints))
		}
	}
	w.cloud.RemoveInstance(index, "weights")
	w.run(15 * time.Second)
	if ours, theirs := shares(b.service("orders")); ours != 2 || theirs != 3 {
		t.Errorf("afterwards weights %d and %d", ours, theirs)
	}
	c := w.node("i-c", func(p *Params) { p.Weights = func(lb.ServiceName) (int, bool) { return 100, true } })
	c.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	c.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	if ours, theirs := shares(c.service("orders")); ours != 2 || theirs != 0 {
		t.Errorf("by config: weights %d and %d", ours, theirs)
	}
}

func TestDivideShares(t *testing.T) {
	list := func(n int, weight uint16) []lb.Endpoint {
		out := make([]lb.Endpoint, n)
		for i := range out {
			out[i].Weight = weight
		}
		return out
	}
	for _, tt := range []struct{ percent, ours, theirs int }{{1, 1, 1000}, {1, 600, 1}, {99, 500, 499}, {50, 7, 3}, {100, 1, 1}, {0, 3, 2}, {33, 999, 1000}} {
		ours, theirs := list(tt.ours, 1), list(tt.theirs, 3)
		divideShares(tt.percent, ours, theirs)
		a, b := float64(weigh(ours)), float64(weigh(theirs))
		if got := 100 * a / (a + b); got < float64(tt.percent)*0.99-0.01 || got > float64(tt.percent)*1.01+0.01 {
			t.Errorf("%+v: %.2f %%", tt, got)
		}
	}
}

// TestForeignHealth: the health of what ECS made moves no revision, and is
// seen within its 30 s.
func TestForeignHealth(t *testing.T) {
	w := newWorld(t, -1)
	ecs := w.cloud.AddService(w.ns, "orders", true)
	w.cloud.AddInstance(ecs, "e1", map[string]string{attrIPv4: "10.9.0.1", attrPort: "8080"})
	b := w.node("i-b")
	w.run(10 * time.Second)
	b.Demand("orders", []string{"prod"})
	w.run(10 * time.Second)
	s := b.service("orders")
	if s == nil || len(s.ClientAliases) != 1 || s.ClientAliases[0] != (lb.ClientAlias{DNSName: "orders", Port: 8080}) {
		t.Fatalf("without aliases the name is not on the instances' port: %+v", s)
	}
	w.cloud.RemoveInstance(ecs, "e1")
	w.cloud.AddInstance(ecs, "e2", map[string]string{attrIPv4: "10.9.0.2", attrPort: "8080"})
	w.within(40*time.Second, "the other instance", func() bool { return b.show("orders") == "10.9.0.2:8080" })
}

// TestDuplicateAddress: the newer registration has the address, the older is
// dead at once, on whatever service; a task's own services share.
func TestDuplicateAddress(t *testing.T) {
	w := newWorld(t, -1)
	a, b, c := w.node("i-a"), w.node("i-b"), w.node("i-c")
	same := func(o *Offer) { o.V4 = netip.MustParseAddr("10.0.0.9") }
	a.Offer([]Offer{a.offer("old", "orders", same), a.offer("other", "orders")}, true)
	w.run(time.Minute)
	a.down = true // its node died, and the address is used again
	b.Offer([]Offer{b.offer("new", "cart", same), b.offer("new2", "carts", same, func(o *Offer) { o.Task = b.offer("new", "cart").Task })}, true)
	w.run(time.Minute)
	for _, name := range []string{"orders", "cart", "carts"} {
		c.Demand(name, []string{"prod"})
	}
	w.run(time.Minute)
	if got := c.show("orders"); got == "" || got == "-" || got[:8] == "10.0.0.9" {
		t.Errorf("the older one's service: %q", got)
	}
	if c.show("cart") != "10.0.0.9:8080" || c.show("carts") != "10.0.0.9:8080" {
		t.Errorf("the newer one's: %q %q", c.show("cart"), c.show("carts"))
	}
	if got := c.Stats().Odd[reasonDuplicate]; got != 1 {
		t.Errorf("%d duplicates counted", got)
	}
}

// TestJunk: instances that are none are left out and counted, others count.
func TestJunk(t *testing.T) {
	w := newWorld(t, -1)
	id := w.cloud.AddService(w.ns, "cd--orders", false)
	for name, attrs := range map[string]map[string]string{
		"good": {attrIPv4: "10.0.0.1", attrPort: "80", attrNode: "n", attrSettings: `{"appProtocol":"http"}`, attrSince: "1"},
		"junk": {attrIPv4: "10.0.0.2", attrPort: "80", attrNode: "n", attrSettings: `{"appProtocol":`, attrSince: "2"},
		"port": {attrIPv4: "10.0.0.3"}, "none": {"x": "y"}, "six": {attrIPv6: "fd00::1", attrPort: "80"},
	} {
		w.cloud.AddInstance(id, name, attrs)
	}
	index := w.cloud.AddService(w.ns, "cd--index", false)
	w.cloud.AddInstance(index, "i-junk", map[string]string{attrVersion: "1", "s0": "=;=.;"})
	b := w.node("i-b")
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	if got := b.show("orders"); got != "10.0.0.1:80 10.0.0.2:80 [fd00::1]:80" {
		t.Errorf("b sees %q", got)
	}
	for reason, want := range map[string]int{reasonNoPort: 1, reasonNoAddress: 1, reasonBadSettings: 1, reasonIPv6Only: 1} {
		if got := b.Stats().Odd[reason]; got != want {
			t.Errorf("%s: %d, want %d", reason, got, want)
		}
	}
}

// TestThousand: a service as large as Cloud Map allows.
func TestThousand(t *testing.T) {
	w := newWorld(t, -1)
	id := w.cloud.AddService(w.ns, "cd--orders", false)
	for i := range 1000 {
		w.cloud.AddInstance(id, fmt.Sprintf("t%04d", i), map[string]string{
			attrIPv4: fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), attrPort: "80", attrNode: "i-x", attrSince: "5", attrSequence: "7",
		})
	}
	b := w.node("i-b")
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	if got := len(b.service("orders").Endpoints); got != 1000 {
		t.Errorf("%d endpoints", got)
	}
	if b.Stats().Odd[reasonTooMany] != 1 {
		t.Error("an answer that may be cut is not counted")
	}
}

// TestSharedNamespace: a namespace of another account is found by its ARN or
// owner and read with OwnerAccount.
func TestSharedNamespace(t *testing.T) {
	w := newWorld(t, -1)
	const other = "444455556666"
	id, arn := w.cloud.AddNamespace(aws.Namespace{Name: "shared", HTTPName: "shared-x1", Account: other, Shared: []string{account}})
	named := func(ns Namespace) func(*Params) {
		return func(p *Params) { p.Namespaces = func() []Namespace { return []Namespace{ns} } }
	}
	a := w.node("i-a", named(Namespace{Name: "shared", ARN: arn}))
	b := w.node("i-b", named(Namespace{Name: "shared", OwnerAccount: other}))
	o := a.offer("t1", "orders")
	o.Service.Name.Namespace = "shared"
	a.Offer([]Offer{o}, true)
	w.run(time.Minute)
	if got := w.cloud.Instances(id)["cd--orders"]; len(got) != 1 {
		t.Fatalf("not registered: %v; %v", got, a.Problems())
	}
	b.Demand("orders", []string{"shared"})
	w.run(time.Minute)
	if got := b.show("orders"); got == "" || got == "-" {
		t.Errorf("b sees %q", got)
	}
}

// TestAliasesOfServiceConnect: they come from ECS, where that is allowed.
func TestAliasesOfServiceConnect(t *testing.T) {
	w := newWorld(t, -1)
	sd := w.cloud.AddService(w.ns, "orders-api", false)
	w.cloud.AddInstance(sd, "e1", map[string]string{attrIPv4: "10.9.0.1", attrPort: "8080"})
	cluster := w.cloud.PutCluster(ecstypes.Cluster{ClusterName: new("main")})
	w.cloud.PutECSService(ecstypes.Service{
		ServiceArn: new(w.cloud.ARN("ecs", "", "service/main/orders")), ClusterArn: &cluster,
		Deployments: []ecstypes.Deployment{{Status: new("PRIMARY"), ServiceConnectConfiguration: &ecstypes.ServiceConnectConfiguration{
			Enabled: true, Namespace: new("prod"), Services: []ecstypes.ServiceConnectService{{
				PortName: new("orders-api"), ClientAliases: []ecstypes.ServiceConnectClientAlias{{Port: new(int32(80)), DnsName: new("orders")}, {Port: new(int32(81))}},
			}},
		}}},
	})
	b := w.node("i-b", func(p *Params) { p.ECS = w.cloud.As(aws.Caller{Label: "i-b"}).ECS })
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	s := b.service("orders-api")
	if s == nil || len(s.ClientAliases) != 2 || s.ClientAliases[0] != (lb.ClientAlias{DNSName: "orders", Port: 80}) || s.ClientAliases[1] != (lb.ClientAlias{DNSName: "orders-api.prod", Port: 81}) {
		t.Fatalf("%+v", s)
	}
	before := b.calls("ListServicesByNamespace")
	w.run(6 * time.Hour)
	if got := b.calls("ListServicesByNamespace") - before; got > 9 {
		t.Errorf("asked %d times in six hours", got)
	}
}
