package cloudmap

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
	"connectd/pkg/testutil/aws"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

// world is a Cloud Map and nodes on one clock that stands until it is moved.
type world struct {
	t     *testing.T
	clock *aws.Clock
	cloud *aws.Cloud
	ns    string // id of namespace prod
	nodes []*node
}

type node struct {
	*Source
	w      *world
	name   string
	index  int
	wake   time.Time
	down   bool
	events int
	log    strings.Builder
}

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

const account = aws.DefaultAccount

// newWorld makes a world whose Cloud Map shows changes after most.
func newWorld(t *testing.T, most time.Duration, change ...func(*aws.Params)) *world {
	t.Helper()
	w := &world{t: t, clock: aws.NewClock(start)}
	p := aws.Params{Seed: 7, Now: w.clock.Now, MaxDelay: most, Stale: -1}
	for _, f := range change {
		f(&p)
	}
	w.cloud = aws.New(p)
	w.ns, _ = w.cloud.AddNamespace(aws.Namespace{Name: "prod"})
	return w
}

func (w *world) node(name string, change ...func(*Params)) *node {
	w.t.Helper()
	n := &node{w: w, name: name, index: len(w.nodes) + 1}
	w.nodes = append(w.nodes, n)
	n.start(change...)
	return n
}

func (n *node) start(change ...func(*Params)) {
	n.w.t.Helper()
	client := n.w.cloud.As(aws.Caller{Label: n.name})
	p := Params{
		Log: slog.New(slog.NewTextHandler(&n.log, nil)), API: client.CloudMap, Node: n.name, Prefix: "cd--", Register: true,
		Zone: "us-east-1a", ZoneID: "use1-az1", Now: n.w.clock.Now, Changed: func() { n.events++ },
		Namespaces: func() []Namespace { return []Namespace{{Name: "prod"}} },
	}
	for _, f := range change {
		f(&p)
	}
	var err error
	if n.Source, err = New(p); err != nil {
		n.w.t.Fatal(err)
	}
	n.wake, n.down = time.Time{}, false
}

// run lets time pass: every node makes the calls that are due.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.clock.Now().Add(d)
	w.until(end, func() bool { return false })
}

// until lets time pass until cond holds, and returns how long that took.
func (w *world) until(end time.Time, cond func() bool) (took time.Duration, ok bool) {
	begun := w.clock.Now()
	for steps := 0; ; steps++ {
		now := w.clock.Now()
		if cond() {
			return now.Sub(begun), true
		}
		if !now.Before(end) {
			return now.Sub(begun), false
		}
		next := end
		for _, n := range w.nodes {
			if n.down {
				continue
			}
			for range 200 {
				wake, called := n.Step(context.Background())
				n.wake = wake
				if !called {
					break
				}
			}
			if n.wake.Before(next) {
				next = n.wake
			}
		}
		if cond() {
			return w.clock.Now().Sub(begun), true
		}
		w.clock.Advance(max(next.Sub(now), time.Millisecond))
		if steps > 200_000 {
			w.t.Fatal("time does not pass")
		}
	}
}

// within fails the test unless cond holds within d.
func (w *world) within(d time.Duration, what string, cond func() bool) time.Duration {
	w.t.Helper()
	took, ok := w.until(w.clock.Now().Add(d), cond)
	if !ok {
		for _, n := range w.nodes {
			w.t.Logf("%s: %s\n%s", n.name, n.show("orders"), n.log.String())
		}
		w.t.Fatalf("not within %s: %s", d, what)
	}
	return took
}

// offer is what a task on this node serves.
func (n *node) offer(id, service string, change ...func(*Offer)) Offer {
	s := defaults()
	s.Name = lb.ServiceName{Namespace: "prod", DiscoveryName: service}
	s.ClientAliases = []lb.ClientAlias{{DNSName: service, Port: 80}}
	o := Offer{
		ID: id, Service: s, Task: "arn:aws:ecs:us-east-1:" + account + ":task/main/" + id, Cluster: "main", ECSService: service, Family: service,
		V4: netip.AddrFrom4([4]byte{10, 0, byte(n.index), byte(len(id)*16 + int(id[len(id)-1])%16)}), Port: 8080, State: Healthy,
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

// show writes a service as "10.0.0.1:8080 10.0.0.2:8080=draining", or "-".
func (n *node) show(service string) string {
	services, _ := n.Snapshot()
	i := slices.IndexFunc(services, func(s *lb.Service) bool { return s.Name.DiscoveryName == service })
	if i < 0 {
		return "-"
	}
	var out []string
	for _, e := range services[i].Endpoints {
		text := e.Address.String()
		if e.Draining {
			text += "=draining"
		} else if e.Declared == lb.DeclaredUnhealthy {
			text += "=unhealthy"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func (n *node) service(name string) *lb.Service {
	services, _ := n.Snapshot()
	for _, s := range services {
		if s.Name.DiscoveryName == name {
			return s
		}
	}
	return nil
}

func (n *node) calls(action string) (sum uint64) {
	for _, c := range n.Stats().Calls {
		if strings.HasSuffix(c.API, ":"+action) {
			sum += c.Count
		}
	}
	return sum
}

// registered is what Cloud Map has: service -> ids.
func (w *world) registered(service string) (ids []string) {
	for id := range w.cloud.Instances(w.ns)[service] {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func addr4(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }

func compareAddresses(a, b string) int {
	return netip.MustParseAddrPort(a).Compare(netip.MustParseAddrPort(b))
}
