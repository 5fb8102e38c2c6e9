package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// TestClusterFollows: what one node publishes is reached by name from the
// others, and so are its changes, with AWS there or away.
func TestClusterFollows(t *testing.T) {
	c := newCluster(t, "A", "B", "C")
	a, b, other := c.nodes["A"], c.nodes["B"], c.nodes["C"]
	one, two, three := c.serve("one"), c.serve("two"), c.serve("three")
	c.start()
	all := func(within time.Duration, by ...string) {
		t.Helper()
		begun := time.Now()
		for _, m := range []*member{b, other, a} {
			m.answered(max(time.Millisecond, within-time.Since(begun)), "orders", by...)
		}
		t.Logf("%v answer everywhere after %s", by, time.Since(begun).Round(10*time.Millisecond))
	}
	if _, err := b.resolve("orders"); err == nil {
		t.Fatal("orders resolves before anybody published it")
	}
	a.catalog(published("orders", "", one))
	all(5*time.Second, "one")
	// A change of an instance is written once in 10 s, a new one at once.
	a.catalog(published("orders", "", one, two))
	all(10*time.Second, "one", "two")
	a.catalog(published("orders", "", two))
	all(10*time.Second, "two")
	if _, err := b.client.Dial(t.Context(), "tcp", "127.254.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a program outside of the node's cgroup: %v, want ECONNREFUSED", err)
	}

	// AWS away: one node is killed and starts, another changes what it serves.
	b.eventually(10*time.Second, func() error { // what is known is on disk seconds later
		text, err := os.ReadFile(b.path("state/cloudmap.json"))
		if err == nil && (!bytes.Contains(text, []byte(two.Addr().String())) || bytes.Contains(text, []byte(one.Addr().String()))) {
			err = errors.New("the last change is not kept yet")
		}
		return err
	})
	back := c.cloud.Outage()
	b.daemon.kill()
	b.start()
	b.answered(5*time.Second, "orders", "two")
	a.catalog(published("orders", "", two, three))
	a.answered(5*time.Second, "orders", "two", "three") // what is local needs no AWS
	b.eventually(20*time.Second, func() error {
		if s := b.status(); !strings.Contains(fmt.Sprint(s.Catalog), "reset") {
			return fmt.Errorf("the status does not say that AWS is away: %+v", s.Catalog)
		}
		return nil
	})
	for _, m := range []*member{b, other} {
		m.answered(time.Second, "orders", "two")
	}
	back()
	all(40*time.Second, "two", "three")
}

// TestClusterNodeDies: of two nodes that serve an HTTP service one goes all at
// once, with its daemon and its server, and takes no leave: no packet comes
// from it any more. That its instances are taken away later, once ECS says that
// its container instance or task has gone, is shown by the tests of
// pkg/catalog/cloudmap on a clock of their own: it takes 10 minutes.
func TestClusterNodeDies(t *testing.T) {
	c := newCluster(t, "A", "B", "C")
	webs := map[string]*web{}
	hosts := map[string]*testutil.Host{}
	for _, name := range []string{"A", "C"} {
		hosts[name] = c.w.Host("web" + name)
		webs[name] = startWeb(hosts[name], name)
		c.nodes[name].catalog(published("orders", "appProtocol: http\n", netip.AddrPortFrom(hosts[name].Addr4(), 8080)))
	}
	c.start()
	b := c.nodes["B"]
	b.eventually(10*time.Second, func() error {
		if _, err := b.resolve("orders"); err != nil {
			return err
		}
		if n := len(b.endpoints("prod/orders")); n != 2 {
			return fmt.Errorf("%d endpoints are known, want 2", n)
		}
		return nil
	})
	vip, err := b.resolve("orders")
	if err != nil {
		t.Fatal(err)
	}
	stop := b.getting("http://"+at(vip, 80)+"/", http.MethodGet)
	progress := func(name string, more int64) {
		t.Helper()
		from := webs[name].requests.Load()
		b.eventually(10*time.Second, func() error {
			if n := webs[name].requests.Load() - from; n < more {
				return fmt.Errorf("%s got %d requests more, want %d", name, n, more)
			}
			return nil
		})
	}
	progress("A", 50)
	progress("C", 50)
	c.nodes["C"].daemon.signal(syscall.SIGKILL)
	for _, h := range []*testutil.Host{hosts["C"], c.nodes["C"].host} {
		if err := h.SetLink(false); err != nil {
			t.Fatal(err)
		}
	}
	// The callers' own view: half a thousand requests more.
	progress("A", 500)
	b.eventually(10*time.Second, func() error { // one caller's word is no ejection for all
		if e := b.endpoints("prod/orders")[netip.AddrPortFrom(hosts["C"].Addr4(), 8080)]; len(e.AvoidedBy) == 0 && e.State == "active" {
			return fmt.Errorf("C is %s and nobody avoids it", e.State)
		}
		return nil
	})
	progress("A", 200)
	got := stop()
	if len(got.Errors) > 0 || got.OK["GET"] < 700 || got.By["C"] == 0 {
		t.Errorf("the callers saw %+v", got)
	}
	if got.Slowest > 3*time.Second || got.Longest > 3*time.Second {
		t.Errorf("a GET took %s, and none was answered for %s: want less than 3s", got.Slowest, got.Longest)
	}
	t.Logf("%+v", got)
	if here := c.instances("cd--orders"); len(here) != 2 {
		t.Errorf("instances of orders are %v: a node that cannot be asked about is not cleaned", here)
	}
}

// TestClusterWeights: half of a service is made by ECS, half by connectd, and
// one instance of the index moves all nodes from one to the other and back,
// the node that serves half of it no less than others.
func TestClusterWeights(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "A", "B")
	a, b := c.nodes["A"], c.nodes["B"]
	ecs, ours := c.serve("ecs"), c.serve("connectd")
	made := c.cloud.AddService(c.namespace, "orders", false)
	c.cloud.AddInstance(made, "0123456789abcdef0123456789abcdef", map[string]string{
		"AWS_INSTANCE_IPV4": ecs.Addr().String(), "AWS_INSTANCE_PORT": fmt.Sprint(ecs.Port()), "AVAILABILITY_ZONE": "us-east-1a",
		"ECS_CLUSTER_NAME": "old", "ECS_SERVICE_NAME": "orders", "ECS_TASK_DEFINITION_FAMILY": "orders",
	})
	a.catalog(published("orders", "", ours))
	c.start()
	for _, m := range []*member{b, a} {
		m.answered(10*time.Second, "orders", "ecs", "connectd")
	}
	const times = 400
	for _, percent := range []int{1, 50, 100, 10, 0} {
		c.move(map[string]string{"orders": fmt.Sprint(percent)})
		for _, m := range []*member{b, a} {
			m.eventually(15*time.Second, func() error {
				got, err := m.ask("orders", times)
				if err != nil {
					return err
				}
				want := times * percent / 100
				slack := 4 * math.Sqrt(times*float64(percent)/100*float64(100-percent)/100) // four deviations
				if math.Abs(float64(got["connectd"]-want)) > slack || got["ecs"]+got["connectd"] != times {
					return fmt.Errorf("at %d %% the client of %s got %v, want %d from connectd", percent, m.name, got, want)
				}
				return nil
			})
		}
	}
	c.move(nil)
	for _, m := range []*member{b, a} {
		m.answered(15*time.Second, "orders", "ecs", "connectd")
	}
}

// TestClusterShared: nodes of two clusters publish one service in one
// namespace, and one of their own each. None touches what is the other's.
func TestClusterShared(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "A", "B")
	a, b := c.nodes["A"], c.nodes["B"]
	left, right, mine, yours := c.serve("left"), c.serve("right"), c.serve("mine"), c.serve("yours")
	a.catalog(published("orders", "", left), published("mine", "", mine))
	b.catalog(published("orders", "", right), published("yours", "", yours))
	c.start()
	for _, m := range []*member{a, b} {
		m.answered(10*time.Second, "orders", "left", "right")
		m.answered(10*time.Second, "mine", "mine")
		m.answered(10*time.Second, "yours", "yours")
	}
	for service, want := range map[string]int{"cd--orders": 2, "cd--mine": 1, "cd--yours": 1} {
		if got := c.instances(service); len(got) != want {
			t.Errorf("instances of %s are %v, want %d", service, got, want)
		}
	}
	b.catalog(published("yours", "", yours))
	for _, m := range []*member{a, b} {
		m.answered(10*time.Second, "orders", "left")
	}
	if got := c.instances("cd--orders"); len(got) != 1 {
		t.Errorf("instances of cd--orders are %v, want that of A", got)
	}
	// A node that stops leaves what it has published: it may be an upgrade.
	a.daemon.stop()
	b.answered(5*time.Second, "orders", "left")
	if got := c.instances("cd--orders"); len(got) != 1 {
		t.Errorf("instances of cd--orders are %v after the node stopped", got)
	}
}
