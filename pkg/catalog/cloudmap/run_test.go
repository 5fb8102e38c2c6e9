package cloudmap

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/testutil/aws"
	"connectd/pkg/wholefile"
)

// TestRun: three nodes with their goroutines and timers, on synctest's clock.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := aws.New(aws.Params{Seed: 3, MaxDelay: time.Second})
		cloud.AddNamespace(aws.Namespace{Name: "prod"})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		nodes := map[string]*Source{}
		for _, name := range []string{"a", "b", "c"} {
			s, err := New(Params{
				API: cloud.As(aws.Caller{Label: name}).CloudMap, Node: name, Prefix: "cd--", Register: true, StateDir: t.TempDir(),
				Namespaces: func() []Namespace { return []Namespace{{Name: "prod"}} }, PollEvery: 2 * time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			nodes[name] = s
			running.Go(func() {
				if err := s.Run(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		nodes["a"].Offer([]Offer{offerOf("t1", 1)}, true)
		time.Sleep(10 * time.Second) // synctest's
		begun := time.Now()
		nodes["b"].Wait(ctx, "orders", []string{"prod"})
		if took := time.Since(begun); took >= waitMost {
			t.Errorf("waited %s for a cold name", took)
		}
		if services, _ := nodes["b"].Snapshot(); len(services) != 1 || len(services[0].Endpoints) != 1 {
			t.Errorf("b has %v", services)
		}
		if !nodes["a"].Registered("prod", "t1") {
			t.Error("a has not seen its instance")
		}
		// With Cloud Map hanging a first query waits 2 s and no longer, and
		// what is known stays.
		end := cloud.Inject(aws.Fault{Call: aws.Call{Service: aws.ServiceCloudMap}, Kind: aws.Hang})
		begun = time.Now()
		nodes["c"].Wait(ctx, "orders", []string{"prod"})
		if took := time.Since(begun); took != waitMost {
			t.Errorf("waited %s for a Cloud Map that hangs", took)
		}
		time.Sleep(5 * time.Minute)
		if services, _ := nodes["b"].Snapshot(); len(services) != 1 || len(services[0].Endpoints) != 1 {
			t.Errorf("while Cloud Map hangs b has %v", services)
		}
		end()
		time.Sleep(2 * time.Minute)
		nodes["c"].Wait(ctx, "orders", []string{"prod"})
		if services, _ := nodes["c"].Snapshot(); len(services) != 1 || len(services[0].Endpoints) != 1 {
			t.Errorf("afterwards c has %v", services)
		}
		cancel()
		running.Wait()
	})
}

func offerOf(id string, last byte) Offer {
	s := defaults()
	s.Name = lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}
	return Offer{ID: id, Service: s, V4: addr4(10, 0, 0, last), Port: 80, State: Healthy}
}

// TestShards: with more nodes than one index service can hold, nodes go on in
// the next, and everybody reads both.
func TestShards(t *testing.T) {
	w := newWorld(t, -1)
	index := w.cloud.AddService(w.ns, "cd--index", false)
	for i := range shardFull {
		w.cloud.AddInstance(index, fmt.Sprintf("old-%d", i), (&indexEntry{Services: map[string]served{}}).encode())
	}
	a, b := w.node("i-a"), w.node("i-b")
	w.run(2 * time.Minute)
	a.Offer([]Offer{a.offer("t1", "orders")}, true)
	w.run(2 * time.Minute)
	if got := len(w.registered("cd--index-a")); got != 2 {
		t.Fatalf("%d entries in the second shard, %d in the first", got, len(w.registered("cd--index")))
	}
	b.Demand("orders", []string{"prod"})
	w.run(30 * time.Second)
	if got := b.show("orders"); got == "" || got == "-" {
		t.Errorf("b sees %q", got)
	}
	if got := b.Stats(); got.Nodes != shardFull+2 || got.Namespaces[0].Shards != 2 {
		t.Errorf("%+v", got)
	}
	if rate := b.Stats().Rate; rate != 0.2 {
		t.Errorf("%d nodes: %g calls a second for each", shardFull, rate)
	}
	a.mu.Lock()
	for i := range 5200 {
		a.spaces["prod"].entries[fmt.Sprint(i)] = &indexEntry{}
	}
	a.setRate()
	a.mu.Unlock()
	if rate := a.Stats().Rate; rate > 0.11 {
		t.Errorf("6,000 nodes: %g calls a second for each", rate)
	}
}

// TestStateFile: one that cannot be read is no reason not to start.
func TestStateFile(t *testing.T) {
	w := newWorld(t, -1)
	for _, text := range []string{"", "{", `{"Version":99}`, `{"Version":1,"Publications":[null]}`, `{"Version":1,"Spaces":{"prod":{"Services":{"BAD":{}}}}}`} {
		dir := t.TempDir()
		if err := wholefile.Write(dir+"/"+stateFile, []byte(text)); err != nil {
			t.Fatal(err)
		}
		n := w.node("i-a", func(p *Params) { p.StateDir = dir })
		w.run(time.Minute)
		if _, status := n.Snapshot(); status[0].Err != nil {
			t.Errorf("%q: %+v", text, status)
		}
		w.nodes = nil
	}
}

// BenchmarkPick is a look at what is due with 500 services in demand.
func BenchmarkPick(b *testing.B) {
	clock := aws.NewClock(start)
	s, err := New(Params{API: aws.New(aws.Params{Now: clock.Now}).As(aws.Caller{}).CloudMap, Node: "a", Prefix: "cd--",
		Namespaces: func() []Namespace { return []Namespace{{Name: "prod"}} }, Now: clock.Now})
	if err != nil {
		b.Fatal(err)
	}
	sp := s.space("prod")
	sp.used, sp.resolved = true, true
	for i := range 500 {
		sv := s.service(sp, fmt.Sprintf("s%d", i))
		sv.demand = clock.Now()
		sv.ours.due = clock.Now().Add(time.Hour)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.bucket.tokens = -100
		s.pick(clock.Now())
	}
}
