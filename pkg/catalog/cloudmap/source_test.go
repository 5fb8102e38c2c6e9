package cloudmap

import (
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil/aws"
)

// TestJoin: what a task on one node serves is reachable by name from others,
// through changes of its state, to its end.
func TestJoin(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	a := w.node("i-a", func(p *Params) { p.PollEvery = 2 * time.Second })
	b := w.node("i-b", func(p *Params) { p.PollEvery = 2 * time.Second })
	w.run(time.Minute)
	if b.Demand("orders", []string{"prod"}) {
		t.Error("a name that nobody has is waited for")
	}
	o := a.offer("t1", "orders", func(o *Offer) { o.State = Pending })
	a.Offer([]Offer{o}, true)
	w.run(time.Minute)
	if got := w.registered("cd--orders"); got != nil {
		t.Fatalf("a task that is not ready is registered: %s", got)
	}
	o.State = Healthy
	a.Offer([]Offer{o}, true)
	took := w.within(10*time.Second, "the name is known on b", func() bool { b.Demand("orders", []string{"prod"}); return b.show("orders") != "-" })
	t.Logf("reachable by name after %s, of which Cloud Map may take 2 s twice", took)
	address := o.V4.String() + ":8080"
	if got := b.show("orders"); got != address {
		t.Fatalf("b sees %q", got)
	}
	s := b.service("orders")
	if s.Endpoints[0].Zone != "use1-az1" || s.Endpoints[0].Declared != lb.DeclaredHealthy || len(s.ClientAliases) != 1 || s.ClientAliases[0] != o.Service.ClientAliases[0] {
		t.Errorf("b sees %+v", s)
	}
	if !a.Registered("prod", "t1") {
		t.Error("a does not know that it is registered")
	}
	if a.show("orders") != "-" {
		t.Errorf("a lists its own %q, which nobody asked for", a.show("orders"))
	}

	w.run(20 * time.Second)
	o.State = Unhealthy
	a.Offer([]Offer{o}, true)
	w.within(15*time.Second, "b sees it unhealthy", func() bool { return b.show("orders") == address+"=unhealthy" })
	o.State = Draining
	a.Offer([]Offer{o}, true)
	took = w.within(10*time.Second, "b sees it draining", func() bool { return b.show("orders") == address+"=draining" })
	t.Logf("draining after %s", took)
	a.Offer(nil, true)
	w.within(10*time.Second, "b sees it gone", func() bool { return b.show("orders") == "" })
	if got := w.registered("cd--orders"); got != nil {
		t.Errorf("left in Cloud Map: %s", got)
	}
	before := b.service("orders")
	if before.ClientAliases == nil {
		t.Error("without instances the aliases are forgotten")
	}
	w.run(20 * time.Minute)
	if b.service("orders") != before {
		t.Error("an unchanged service is another pointer")
	}
}

// TestColdName: the first question for a name makes it be read.
func TestColdName(t *testing.T) {
	w := newWorld(t, -1)
	a := w.node("i-a")
	a.Offer([]Offer{a.offer("t1", "orders", func(o *Offer) { o.Service.ClientAliases = []lb.ClientAlias{{DNSName: "shop.corp", Port: 80}} })}, true)
	w.run(time.Minute)
	b := w.node("i-b")
	w.run(time.Minute)
	if got := b.calls("DiscoverInstances"); got > 3 {
		t.Errorf("%d reads though nobody asked for anything", got)
	}
	for _, name := range []string{"example.com", "orders.other", "x"} {
		if b.Demand(name, []string{"prod"}) {
			t.Errorf("%s is waited for", name)
		}
	}
	if b.Demand("shop.corp", []string{"dev"}) {
		t.Error("a name of a namespace that the task may not use is waited for")
	}
	if !b.Demand("Shop.Corp.", []string{"dev", "prod"}) {
		t.Fatal("a cold name is not waited for")
	}
	w.within(time.Second, "read", func() bool { return b.show("orders") != "-" })
	if b.Demand("orders.prod", []string{"prod"}) {
		t.Error("a warm name is waited for")
	}
	// A day without a question, and it is forgotten.
	w.run(24*time.Hour + time.Minute)
	if got := b.show("orders"); got != "-" {
		t.Errorf("after a day: %s", got)
	}
}

// TestIndexSparesReads: what is not in demand is not read, however much it
// changes, and nothing is read that did not change.
func TestIndexSparesReads(t *testing.T) {
	w := newWorld(t, -1)
	a, b := w.node("i-a"), w.node("i-b")
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Hour)
	before := b.calls("DiscoverInstances")
	for i := range 5 {
		a.Offer([]Offer{a.offer("t1", "orders"), a.offer("c"+string(rune('0'+i)), "cart")}, true)
		w.run(time.Minute)
	}
	reads := b.calls("DiscoverInstances") - before
	if reads > 15 { // the index, after each of its changes: register and deregister may be two
		t.Errorf("%d reads for changes of a service nobody uses", reads)
	}
	if polls := b.calls("DiscoverInstancesRevision"); polls > 60*60/7+5*8+60 {
		t.Errorf("%d polls in an hour", polls)
	}
	if got := b.Stats(); got.Namespaces[0].Demanded != 1 {
		t.Errorf("%+v", got)
	}
}

// TestStaleAndSlow: with answers one revision old every other time, and
// registrations that show after up to 10 s, nothing ever goes back.
func TestStaleAndSlow(t *testing.T) {
	w := newWorld(t, 10*time.Second, func(p *aws.Params) { p.Stale = 0.5 })
	a, b := w.node("i-a"), w.node("i-b")
	var offers []Offer
	w.run(30 * time.Second)
	for i := range 8 {
		offers = append(offers, a.offer("t"+string(rune('a'+i)), "orders"))
		a.Offer(offers, true)
		w.run(7 * time.Second)
		b.Demand("orders", []string{"prod"})
	}
	most := 0
	w.within(2*time.Minute, "all eight", func() bool {
		n := len(strings.Fields(strings.TrimPrefix(b.show("orders"), "-")))
		if n < most {
			t.Errorf("%d endpoints after %d", n, most)
		}
		most = max(n, most)
		return n == 8
	})
	if b.Stats().Stale == 0 {
		t.Error("no answer was stale: the test shows nothing")
	}
	w.within(2*time.Minute, "a knows that all are registered", func() bool { return a.Stats().Seen == 8 })
}

// TestOutage: with AWS away everything known stays, over a restart too, and is
// said to be old.
func TestOutage(t *testing.T) {
	w := newWorld(t, -1)
	dir := t.TempDir()
	a := w.node("i-a")
	b := w.node("i-b", func(p *Params) { p.StateDir = dir })
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(2 * time.Minute)
	known := b.show("orders")
	if known == "-" || known == "" {
		t.Fatal(known)
	}
	end := w.cloud.Outage()
	w.run(10 * time.Minute)
	calls := b.calls("DiscoverInstancesRevision")
	w.run(10 * time.Minute)
	if more := b.calls("DiscoverInstancesRevision") - calls; more > 15 {
		t.Errorf("%d calls in 10 minutes to an AWS that is away", more)
	}
	if got := b.show("orders"); got != known {
		t.Fatalf("with AWS away: %q", got)
	}
	_, status := b.Snapshot()
	if status[0].Err == nil || w.clock.Now().Sub(status[0].Loaded) < 19*time.Minute {
		t.Errorf("status %+v", status[0])
	}
	b.save(true)
	b.start(func(p *Params) { p.StateDir = dir })
	if got := b.show("orders"); got != known {
		t.Errorf("after a restart with AWS away: %q", got)
	}
	w.run(time.Minute)
	if got := b.show("orders"); got != known {
		t.Errorf("a minute after a restart with AWS away: %q", got)
	}
	if b.Demand("orders", []string{"prod"}) {
		t.Error("a known name is waited for")
	}
	b.tellLate()
	if !strings.Contains(b.log.String(), "what is known of a namespace is old") {
		t.Error("the log does not say that it is old")
	}
	a.Offer([]Offer{a.offer("t1", "orders"), a.offer("t2", "orders")}, true)
	end()
	w.within(3*time.Minute, "the new endpoint after the outage", func() bool { return len(strings.Fields(b.show("orders"))) == 2 })
	if _, status = b.Snapshot(); status[0].Err != nil {
		t.Errorf("after the outage: %+v", status[0])
	}
}

// TestCredentials: what IAM or the credentials refuse is named.
func TestCredentials(t *testing.T) {
	w := newWorld(t, -1)
	b := w.node("i-b")
	w.run(time.Minute)
	for code, want := range map[string]string{
		aws.CodeExpired:      "credentials are missing, expired or not valid",
		aws.CodeAccessDenied: "its policy must allow servicediscovery:DiscoverInstancesRevision",
	} {
		end := w.cloud.Inject(aws.Fault{Call: aws.Call{Service: aws.ServiceCloudMap}, Kind: aws.Refuse, Code: code})
		w.run(time.Minute)
		_, status := b.Snapshot()
		if status[0].Err == nil || !strings.Contains(status[0].Err.Error(), want) {
			t.Errorf("%s: %v", code, status[0].Err)
		}
		end()
		w.run(15 * time.Minute)
	}
}

// TestFailedPollsFaster: after a failed connect the index is polled every 2 s
// for a minute.
func TestFailedPollsFaster(t *testing.T) {
	w := newWorld(t, -1)
	a, b := w.node("i-a"), w.node("i-b")
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(5 * time.Minute)
	before := b.calls("DiscoverInstancesRevision")
	w.run(time.Minute)
	slow := b.calls("DiscoverInstancesRevision") - before
	b.Failed(b.service("orders").Endpoints[0].Address)
	w.run(time.Minute)
	fast := b.calls("DiscoverInstancesRevision") - before - slow
	if slow > 8 || fast < 20 {
		t.Errorf("%d polls in a minute, %d after a failure", slow, fast)
	}
	w.run(5 * time.Minute)
	before = b.calls("DiscoverInstancesRevision")
	w.run(time.Minute)
	if got := b.calls("DiscoverInstancesRevision") - before; got > 8 {
		t.Errorf("%d polls a minute long after a failure", got)
	}
}

// TestColdStartWithoutAWS: a node that knows nothing holds up queries for the
// first seconds only.
func TestColdStartWithoutAWS(t *testing.T) {
	w := newWorld(t, -1)
	w.cloud.Outage()
	b := w.node("i-b")
	w.run(2 * time.Second)
	if !b.Demand("orders", []string{"prod"}) {
		t.Error("2 s after the start nothing is waited for")
	}
	w.run(coldFor)
	if b.Demand("example.com", []string{"prod"}) {
		t.Error("with AWS away for long the names of the world wait")
	}
}

// TestCopiedDisk: the state of another node is not this one's.
func TestCopiedDisk(t *testing.T) {
	w := newWorld(t, -1)
	dir := t.TempDir()
	a := w.node("i-a", func(p *Params) { p.StateDir = dir })
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	a.save(true)
	b := w.node("i-b", func(p *Params) { p.StateDir = dir })
	b.Offer(nil, true)
	w.run(time.Minute)
	if got := w.registered("cd--orders"); len(got) != 1 {
		t.Errorf("left: %s", got)
	}
	if !strings.Contains(b.log.String(), "of another node") {
		t.Error("the log does not say so")
	}
}

// TestUrgentReadIsNotHeldUp: a service whose slow read waits for tokens is read
// at once when the index says that it has changed.
func TestUrgentReadIsNotHeldUp(t *testing.T) {
	w := newWorld(t, -1)
	a, b := w.node("i-a"), w.node("i-b", func(p *Params) { p.CallsPerSecond = 0.12 })
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(time.Minute)
	b.Demand("orders", []string{"prod"})
	w.run(time.Minute)
	b.mu.Lock()
	o := b.spaces["prod"].services["orders"].ours
	o.due, o.class = w.clock.Now().Add(-time.Minute), classSlow
	b.bucket.tokens = 1 + reserve
	b.mu.Unlock()
	a.Offer([]Offer{a.offer("t1", "orders"), a.offer("t2", "orders")}, true)
	w.within(40*time.Second, "the change on b", func() bool {
		b.mu.Lock()
		b.bucket.tokens = min(b.bucket.tokens, 1+2*reserve-0.1) // never enough for a slow read
		b.mu.Unlock()
		return len(strings.Fields(b.show("orders"))) == 2
	})
}
