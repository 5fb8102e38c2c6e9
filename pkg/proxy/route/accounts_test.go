package route

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func owned(id int, service string) plan.Endpoint {
	e := endpoint(id, 1)
	e.Owner = lb.NewOwner(service, "shop")
	return e
}

func calling(service string) *plan.Task { return &plan.Task{Owner: lb.NewOwner(service, "shop")} }

// tally is what is counted of a service, by who called and who served.
func tally(s *Service) map[string]uint64 {
	out := make(map[string]uint64)
	s.Accounts(func(c *Caller) {
		n := uint64(0)
		for i := range c.Classes {
			n += c.Classes[i].Load()
		}
		out["tries by "+c.Owner.String()] = n
		out["bytes by "+c.Owner.String()] = c.Received.Load() + c.Sent.Load()
	}, func(s *Server) { out["requests to "+s.Owner.String()] = s.Requests.Load() })
	return out
}

func expectTally(t *testing.T, s *Service, want map[string]uint64) {
	t.Helper()
	if got := tally(s); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// TestAccounts: who called and who served is told apart by ECS service, and what
// was counted stays when tasks and endpoints go.
func TestAccounts(t *testing.T) {
	table, r := routed1(lb.RoundRobin, owned(1, "old"), owned(2, "new"), owned(3, "new"), endpoint(4, 1))
	s := r.State
	expectTally(t, s, map[string]uint64{})
	for id, task := range []*plan.Task{1: calling("web"), 2: calling("web"), 3: calling("cron"), 4: nil} {
		if id == 0 {
			continue
		}
		e := table.endpoints[lb.EndpointID(id)]
		s.Caller(task).Done(200, -1, time.Millisecond, 0, 0)
		s.Ended(task, e.Server(), 3, 4)
	}
	s.Ended(&plan.Task{}, nil, -1, -1) // refused: nothing was tried
	want := map[string]uint64{
		"tries by ": 1, "bytes by ": 7, "tries by shop/web": 2, "bytes by shop/web": 14, "tries by shop/cron": 1, "bytes by shop/cron": 7,
		"requests to shop/old": 1, "requests to shop/new": 2, "requests to ": 2,
	}
	expectTally(t, s, want)
	// The last of web ended, old has no endpoint left, and who serves 4 is known.
	table.Publish(&plan.Desired{Services: []*plan.Service{service(1, lb.RoundRobin, []netip.AddrPort{vipOf(1)}, owned(2, "new"), owned(4, "new"))}})
	expectTally(t, s, want)
	s.Ended(nil, table.endpoints[4].Server(), 0, 0)
	want["requests to shop/new"]++
	expectTally(t, s, want)
}

// TestAccountsAreBounded: when there is room for no more, who is new is counted
// as nobody, until those are forgotten who have gone; no count is lost.
func TestAccountsAreBounded(t *testing.T) {
	table := New()
	table.room.most = 4
	plans := func(tasks []*plan.Task, endpoints ...plan.Endpoint) *Service {
		s := service(1, lb.RoundRobin, []netip.AddrPort{vipOf(1)}, endpoints...)
		table.Publish(&plan.Desired{Services: []*plan.Service{s}, Tasks: tasks})
		return table.Route(vipOf(1)).State
	}
	s := plans(nil, owned(1, "a"), owned(2, "b"))
	call := func(service string) { s.Caller(calling(service)).Done(200, -1, 0, 0, 0) }
	for range 2 {
		for i := range 10 {
			call(fmt.Sprint("web-", i))
		}
	}
	expectTally(t, s, map[string]uint64{
		"tries by ": 16, "bytes by ": 0, "tries by shop/web-0": 2, "bytes by shop/web-0": 0, "tries by shop/web-1": 2, "bytes by shop/web-1": 0,
	})
	// The first plan in which somebody is gone makes room.
	plans([]*plan.Task{calling("web-1")}, owned(1, "a"), owned(3, "c"))
	if table.room.used != 2 { // of a and web-1; c was there too late
		t.Fatalf("%d accounts are left", table.room.used)
	}
	call("web-7")
	s.Ended(nil, table.endpoints[3].Server(), 0, 0)
	plans([]*plan.Task{calling("web-1"), calling("web-7")}, owned(4, "c"))
	s.Ended(nil, table.endpoints[4].Server(), 0, 0)
	expectTally(t, s, map[string]uint64{
		"tries by ": 16, "bytes by ": 0, "tries by shop/web-1": 2, "bytes by shop/web-1": 0, "tries by shop/web-7": 1, "bytes by shop/web-7": 0,
		"requests to ": 1, "requests to shop/c": 1,
	})
	table.Publish(&plan.Desired{})
	if table.room.used != 0 {
		t.Errorf("%d accounts of no service", table.room.used)
	}
	call("web-8") // a last request of a service that has gone
	if table.room.used != 0 {
		t.Errorf("%d accounts of a service that has gone", table.room.used)
	}
}

// TestAccountsConcurrent: callers that are all new at once are each there once.
func TestAccountsConcurrent(t *testing.T) {
	table, r := routed1(lb.RoundRobin, owned(1, "a"))
	const each = 500
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range each {
				r.State.Caller(calling(fmt.Sprint(i%20))).Done(200, -1, 0, 0, 0)
			}
		})
	}
	wg.Wait()
	total := uint64(0)
	callers := 0
	r.State.Accounts(func(c *Caller) { callers++; total += c.Classes[2].Load() }, func(*Server) {})
	if callers != 20 || total != 8*each || table.room.used != 21 {
		t.Errorf("%d callers with %d tries, %d accounts", callers, total, table.room.used)
	}
}

func TestAccountsDoNotAllocate(t *testing.T) {
	table, r := routed1(lb.RoundRobin, owned(1, "a"))
	task, e := calling("web"), table.endpoints[1]
	if n := testing.AllocsPerRun(100, func() {
		r.State.Caller(task).Done(200, -1, time.Millisecond, 0, 0)
		r.State.Ended(task, e.Server(), 1, 2)
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkAccounts(b *testing.B) {
	table, r := routed1(lb.RoundRobin, owned(1, "a"))
	for i := range 20 {
		r.State.Caller(calling(fmt.Sprint(i)))
	}
	task, e := calling("7"), table.endpoints[1]
	b.ReportAllocs()
	for b.Loop() {
		r.State.Caller(task).Done(200, -1, time.Millisecond, 0, 0)
		r.State.Ended(task, e.Server(), 1, 2)
	}
}
