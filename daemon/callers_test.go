package daemon

import (
	"fmt"
	"testing"
	"time"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

func tasksOf(owners map[lb.TaskID]string) *plan.Desired {
	p := &plan.Desired{}
	for id, service := range owners {
		p.Tasks = append(p.Tasks, &plan.Task{ID: id, Owner: lb.NewOwner(service, "shop")})
	}
	return p
}

type callerBytes map[datapath.Caller]datapath.Bytes

func moved(n uint64) datapath.Bytes { return datapath.Bytes{Sent: n} }

// TestCallersBytes: growth goes to who the task is of, sums never fall and
// nothing is counted twice, whatever becomes of tasks, ids and kernel entries.
func TestCallersBytes(t *testing.T) {
	l := &callerLedger{}
	step := func(what string, owners map[lb.TaskID]string, ended, sum callerBytes, want string) {
		t.Helper()
		l.settle(tasksOf(owners), &callerReading{ended: ended, sum: sum})
		got := map[string]uint64{}
		for k, v := range l.totals {
			got[fmt.Sprintf("%d by %s", k.service, k.owner)] = v.bytes
		}
		if fmt.Sprint(got) != "map["+want+"]" {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	one, two, other := datapath.Caller{Task: 1, Service: 3}, datapath.Caller{Task: 2, Service: 3}, datapath.Caller{Task: 1, Service: 4}
	both := map[lb.TaskID]string{1: "web", 2: "web"}
	step("what an earlier daemon left", both, callerBytes{one: moved(100)}, callerBytes{one: moved(110)}, "")
	step("nothing new", both, callerBytes{one: moved(100)}, callerBytes{one: moved(110)}, "")
	step("a live one moves", both, callerBytes{one: moved(100)}, callerBytes{one: moved(115), two: moved(7)}, "3 by shop/web:12")
	step("a sample comes late", both, callerBytes{one: moved(100)}, callerBytes{one: moved(112), two: moved(7)}, "3 by shop/web:12")
	step("they end", both, callerBytes{one: moved(115), two: moved(8), other: moved(5)}, nil, "3 by shop/web:13 4 by shop/web:5")
	step("a task is gone", map[lb.TaskID]string{2: "web"}, callerBytes{one: moved(116), two: moved(8), other: moved(5)}, nil, "3 by shop/web:14 4 by shop/web:5")
	again := map[lb.TaskID]string{1: "cron", 2: "web"}
	step("its id is another's", again, callerBytes{one: moved(119), two: moved(8), other: moved(5)}, nil, "3 by shop/cron:3 3 by shop/web:14 4 by shop/web:5")
	step("the kernel forgets", again, callerBytes{two: moved(8)}, callerBytes{one: moved(119)}, "3 by shop/cron:3 3 by shop/web:14 4 by shop/web:5")
	step("and begins anew", again, callerBytes{one: moved(2), two: moved(8)}, nil, "3 by shop/cron:5 3 by shop/web:14 4 by shop/web:5")
	step("a task of nobody", map[lb.TaskID]string{1: "", 2: "web"}, callerBytes{one: moved(3), two: moved(8)}, nil, "3 by :1 3 by shop/cron:5 3 by shop/web:14 4 by shop/web:5")
}

// TestCallersRequests: the same of mode direct.
func TestCallersRequests(t *testing.T) {
	l := &callerLedger{}
	read := func(ok, failed uint64) {
		l.settle(tasksOf(map[lb.TaskID]string{1: "web"}), &callerReading{http: map[datapath.Caller]datapath.HTTPCounters{{Task: 1, Service: 3}: {
			Classes: [6]uint64{2: ok, 5: failed}, Time: datapath.Histogram{Buckets: []uint64{ok, failed}, Sum: time.Duration(ok+failed) * time.Millisecond},
		}}})
	}
	for _, n := range [][2]uint64{{4, 1}, {10, 1}, {10, 3}, {1, 1}} { // at last anew
		read(n[0], n[1])
	}
	h := l.totals[ownedCall{3, lb.NewOwner("web", "shop")}].http
	if got, want := fmt.Sprint(h.Classes, h.Duration), "[0 0 7 0 0 3 0] {[7 3] 10000}"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
}

// TestCallersAreBounded: totals of who has gone make room, and with too many at
// once the rest is nobody's.
func TestCallersAreBounded(t *testing.T) {
	l := &callerLedger{}
	l.settle(&plan.Desired{}, &callerReading{})
	read := func(from, n int) {
		owners, ended := map[lb.TaskID]string{}, callerBytes{}
		for i := from; i < from+n; i++ {
			owners[lb.TaskID(i)] = fmt.Sprint("svc-", i)
			ended[datapath.Caller{Task: lb.TaskID(i), Service: 3}] = moved(1)
		}
		l.settle(tasksOf(owners), &callerReading{ended: ended})
	}
	read(0, maxCallerTotals+100)
	if n := len(l.totals); n != maxCallerTotals+1 || l.totals[ownedCall{service: 3}].bytes != 100 {
		t.Errorf("%d totals, %+v of nobody", n, l.totals[ownedCall{service: 3}])
	}
	read(10000, 50)
	if n := len(l.totals); n > 100 || len(l.marks) != 50 {
		t.Errorf("%d totals and %d marks of 50 that are left", n, len(l.marks))
	}
}
