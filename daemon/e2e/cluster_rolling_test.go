package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// fleet is an HTTP service whose servers are on nodes of a cluster, and are
// published by them.
type fleet struct {
	*cluster
	webs map[string]*web
	at   map[string]netip.AddrPort
	ends map[string]func() // in good order: answers what it has begun
}

func newFleet(c *cluster) *fleet {
	return &fleet{cluster: c, webs: map[string]*web{}, at: map[string]netip.AddrPort{}, ends: map[string]func(){}}
}

// serve starts a server.
func (f *fleet) serve(name string) { f.Helper(); f.serveIn(f.w, name) }

func (f *fleet) serveIn(w *testutil.World, name string) {
	f.Helper()
	h := w.Host("web" + name)
	f.webs[name], f.at[name] = &web{name: name}, netip.AddrPortFrom(h.Addr4(), 8080)
	f.ends[name] = serveWeb(h, f.webs[name])
}

const healthyWeb = "appProtocol: http\nhealthCheck: {protocol: http, path: /, intervalSeconds: 1}\noutlier: {baseEjectionSeconds: 5, maxEjectionSeconds: 5}\n"

// publish has a node publish servers; those of leaving as draining.
func (f *fleet) publish(m *member, leaving string, servers ...string) {
	f.Helper()
	text := published("orders", healthyWeb)
	if len(servers) > 0 {
		text += "    endpoints:\n"
	}
	for _, s := range servers {
		text += fmt.Sprintf("      - {address: %s, port: %d, draining: %t}\n", f.at[s].Addr(), f.at[s].Port(), s == leaving)
	}
	m.catalog(text)
}

// active waits until exactly these servers take requests of a node's clients.
func (f *fleet) active(m *member, servers ...string) {
	f.Helper()
	m.eventually(40*time.Second, func() error {
		if _, err := m.resolve("orders"); err != nil { // who does not ask does not look
			return err
		}
		list, err := m.known("prod/orders")
		if err != nil {
			return err
		}
		var got []string
		for name, at := range f.at {
			if e, ok := list[at]; ok && e.State == "active" {
				got = append(got, name)
			}
		}
		if slices.Sort(got); !slices.Equal(got, servers) {
			return fmt.Errorf("on %s %v are active, want %v", m.name, got, servers)
		}
		return nil
	})
}

// load sends GETs and POSTs from the nodes' clients until stop, which returns
// what each saw.
func (f *fleet) load(by ...*member) (stop func() map[string]gets) {
	f.Helper()
	return f.send([]string{http.MethodGet, http.MethodPost}, by...)
}

func (f *fleet) send(methods []string, by ...*member) (stop func() map[string]gets) {
	f.Helper()
	stops := map[string]func() gets{}
	for _, m := range by {
		vip, err := m.resolve("orders")
		if err != nil {
			f.Fatal(err)
		}
		stops[m.name] = m.getting("http://"+at(vip, 80)+"/", methods...)
	}
	return func() map[string]gets {
		out := map[string]gets{}
		for name, s := range stops {
			out[name] = s()
		}
		return out
	}
}

// got waits until each of the servers had so many requests more from the
// client of each node.
func (f *fleet) got(more int64, from []*member, servers ...string) {
	f.Helper()
	before := map[*atomic.Int64]int64{}
	for _, m := range from {
		for _, name := range servers {
			n := f.webs[name].askedBy(m.client.Addr4())
			before[n] = n.Load()
		}
	}
	from[0].eventually(15*time.Second, func() error {
		for _, m := range from {
			for _, name := range servers {
				n := f.webs[name].askedBy(m.client.Addr4())
				if got := n.Load() - before[n]; got < more {
					return fmt.Errorf("%s got %d requests more from the client of %s, want %d", name, got, m.name, more)
				}
			}
		}
		return nil
	})
}

// TestClusterRolling replaces the servers of two nodes one by one under load
// from a node that serves and from one that does not: no GET and no POST
// fails. One server is marked as draining first, the other is taken out of the
// list at once, as that of a task that has ended; both go on until the
// callers' nodes have seen it, which is what a deployment waits for.
func TestClusterRolling(t *testing.T) {
	f := newFleet(newCluster(t, "A", "B", "C"))
	a, b, c := f.nodes["A"], f.nodes["B"], f.nodes["C"]
	everywhere := func(servers ...string) {
		t.Helper()
		begun := time.Now()
		for _, m := range []*member{a, b, c} {
			f.active(m, servers...)
		}
		t.Logf("%v are active everywhere after %s", servers, time.Since(begun).Round(10*time.Millisecond))
	}
	end := func(server string) {
		begun := time.Now()
		f.ends[server]()
		t.Logf("%s ended in %s", server, time.Since(begun).Round(time.Millisecond))
	}
	f.serve("a1")
	f.serve("b1")
	f.publish(a, "", "a1")
	f.publish(b, "", "b1")
	f.start()
	everywhere("a1", "b1")
	callers := []*member{a, c}
	stop := f.load(callers...)
	f.got(50, callers, "a1", "b1")

	f.serve("a2")
	f.publish(a, "", "a1", "a2")
	everywhere("a1", "a2", "b1")
	f.publish(a, "a1", "a1", "a2")
	f.serve("b2")
	f.publish(b, "", "b1", "b2")
	everywhere("a2", "b1", "b2")
	end("a1")
	f.publish(a, "", "a2")
	f.publish(b, "", "b2")
	everywhere("a2", "b2")
	end("b1")
	f.got(50, callers, "a2", "b2")
	for name, got := range stop() {
		t.Logf("the client of %s: %+v", name, got)
		if len(got.Errors) > 0 || got.OK["GET"] < 200 || got.OK["POST"] < 200 || len(got.By) != 4 {
			t.Errorf("the client of %s saw %+v, want none failed and all four servers", name, got)
		}
	}

	f.nodes["A"].eventually(10*time.Second, func() error {
		if here := f.instances("cd--orders"); len(here) != 2 {
			return fmt.Errorf("instances of orders are %v, want two", here)
		}
		return nil
	})
}

// TestClusterAwayRolling replaces a server of one node while AWS is away. Its
// own clients get the new one at once, and no GET or POST of theirs fails.
// Another node knows only what it knew: no GET of its client fails, of which
// the server of a third node answers those that the old one does not any more.
// It has the new one soon after AWS is back.
func TestClusterAwayRolling(t *testing.T) {
	t.Parallel()
	f := newFleet(newCluster(t, "A", "B", "C"))
	a, b, c := f.nodes["A"], f.nodes["B"], f.nodes["C"]
	f.serve("a1")
	f.serve("b1")
	f.publish(a, "", "a1")
	f.publish(b, "", "b1")
	f.start()
	for _, m := range []*member{a, b, c} {
		f.active(m, "a1", "b1")
	}
	near, far := f.load(a), f.send([]string{http.MethodGet}, c)
	f.got(30, []*member{a, c}, "a1", "b1")

	back := f.cloud.Outage()
	f.serve("a2")
	f.publish(a, "", "a1", "a2")
	f.active(a, "a1", "a2", "b1")
	f.publish(a, "a1", "a1", "a2")
	f.active(a, "a2", "b1")
	f.got(30, []*member{c}, "a1", "b1") // it has not heard of any of it
	f.ends["a1"]()
	f.publish(a, "", "a2")
	f.got(30, []*member{a}, "a2", "b1")
	f.got(200, []*member{c}, "b1")
	if n := f.webs["a2"].askedBy(c.client.Addr4()).Load(); n > 0 {
		t.Errorf("the client of C made %d requests to a2, which AWS does not know", n)
	}
	back()
	begun := time.Now()
	f.active(c, "a2", "b1")
	t.Logf("C has followed %s after AWS was back", time.Since(begun).Round(10*time.Millisecond))
	f.got(30, []*member{c}, "a2", "b1")
	for name, got := range map[string]gets{"A": near()["A"], "C": far()["C"]} {
		t.Logf("the client of %s: %+v", name, got)
		if len(got.Errors) > 0 || len(got.By) != 3 {
			t.Errorf("the client of %s saw %+v, want none failed and all three servers", name, got)
		}
	}
}
