package route

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// load is requests that come evenly; want is how many retries each asks for.
type load struct {
	perSecond, want int
	lasts           time.Duration
}

// run lets a load pass from now on and returns how many retries there were.
func (l load) run(b *Budget, r lb.Retry, now *int64) (requests, retries int) {
	requests = int(l.lasts.Seconds() * float64(l.perSecond))
	step := int64(time.Second) / int64(l.perSecond)
	for range requests {
		*now += step
		b.Deposit(r, *now)
		for range l.want {
			if b.Take(r, *now) {
				retries++
			}
		}
	}
	return requests, retries
}

// TestBudgetOfFailing: while every request fails, the share and the floor are
// what is tried again, besides what was saved up.
func TestBudgetOfFailing(t *testing.T) {
	for _, c := range []struct {
		name           string
		percent, floor int
		perSecond      int
	}{
		{"as Service Connect's clients come", 20, 3, 100},
		{"many requests", 20, 3, 2000},
		{"few requests", 20, 3, 1},
		{"floor only", 0, 3, 100},
		{"share only", 20, 0, 100},
		{"everything", 100, 0, 100},
		{"one percent", 1, 0, 1000},
		{"a high floor", 20, 100, 1000},
		{"nothing", 0, 0, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := lb.Retry{Attempts: 2, BudgetPercent: uint8(c.percent), BudgetFloor: uint16(c.floor)}
			var b Budget
			now := epoch
			const lasts = 60 * time.Second
			requests, retries := load{c.perSecond, 2, lasts}.run(&b, r, &now)
			most := requests*c.percent/100 + c.floor*(60+budgetSeconds) + 1
			most = min(most, 2*requests)
			if retries > most {
				t.Errorf("%d retries of %d requests, want at most %d", retries, requests, most)
			}
			if least := most*9/10 - 1; retries < least {
				t.Errorf("%d retries of %d requests, want at least %d", retries, requests, least)
			}
		})
	}
}

// TestBudgetSavesTenSeconds: however long all was well, what can be tried again
// at once is what ten seconds have put in, and at most a thousand.
func TestBudgetSavesTenSeconds(t *testing.T) {
	for _, c := range []struct {
		name           string
		percent, floor int
		perSecond      int
		want           int
	}{
		{"share and floor", 20, 3, 10, 10 * (2 + 3)},
		{"share", 20, 0, 50, 10 * 10},
		{"floor", 0, 3, 50, 10 * 3},
		{"a busy service", 20, 3, 2000, 1000},
		{"a high floor", 0, 2000, 10, 10 * 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := lb.Retry{BudgetPercent: uint8(c.percent), BudgetFloor: uint16(c.floor)}
			var b Budget
			now := epoch
			load{c.perSecond, 0, time.Minute}.run(&b, r, &now)
			if n := storm(&b, r, now); n < c.want*8/10 || n > c.want*11/10+1 {
				t.Errorf("a storm of %d, want about %d", n, c.want)
			}
			if storm(&b, r, now) != 0 {
				t.Error("a second storm")
			}
			// Ten seconds of silence are worth the floor alone.
			load{c.perSecond, 0, time.Minute}.run(&b, r, &now)
			now += 10 * second
			if n, want := storm(&b, r, now), 10*c.floor; n != want {
				t.Errorf("after a silence a storm of %d, want %d", n, want)
			}
		})
	}
}

// storm takes all there is.
func storm(b *Budget, r lb.Retry, now int64) (n int) {
	for b.Take(r, now) {
		n++
	}
	return n
}

// TestBudgetBegins: full of its floor, whatever the clock says, and filled by
// time that has really passed.
func TestBudgetBegins(t *testing.T) {
	r := lb.Retry{BudgetFloor: 3}
	for _, begin := range []int64{0, 1, epoch} {
		var b Budget
		steps := []struct {
			at   int64
			want int
		}{
			{0, 30}, {0, 0}, {second / 1000, 0}, {second, 3}, {second / 2, 0}, {second, 0}, {3 * second, 6},
			{20 * second, 30}, {20 * second, 0},
		}
		for _, s := range steps {
			got := 0
			for got < 100 && b.Take(r, begin+s.at) {
				got++
			}
			if got != s.want {
				t.Errorf("begun at %d, %s later: %d retries, want %d", begin, time.Duration(s.at), got, s.want)
			}
		}
	}
}

// TestBudgetFollowsItsService: a service that gets other bounds keeps its
// bucket.
func TestBudgetFollowsItsService(t *testing.T) {
	var b Budget
	if n := storm(&b, lb.Retry{BudgetFloor: 3}, epoch); n != 30 {
		t.Fatalf("%d retries to begin with", n)
	}
	if n := storm(&b, lb.Retry{BudgetFloor: 50}, epoch+second); n != 50 {
		t.Errorf("%d retries after a second of a floor of 50", n)
	}
	b.Deposit(lb.Retry{BudgetFloor: 50}, epoch+11*second)
	if n := storm(&b, lb.Retry{}, epoch+21*second); n != 0 {
		t.Errorf("%d retries ten seconds after the budget was taken away", n)
	}
}

// TestBudgetConcurrent: several loops take from one bucket no more than there
// is, and all of it.
func TestBudgetConcurrent(t *testing.T) {
	r := lb.Retry{BudgetPercent: 20, BudgetFloor: 10}
	var b Budget
	b.Deposit(r, epoch)
	var took atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if b.Take(r, epoch) {
					took.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := took.Load(); n != 100 {
		t.Errorf("%d retries out of a bucket of 100", n)
	}
	const each = 1000
	for range 8 {
		wg.Go(func() {
			for i := range int64(each) {
				b.Deposit(r, epoch+i)
				if b.Take(r, epoch+i) {
					took.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n, most := took.Load(), int64(100+8*each/5); n > most || n < 100 {
		t.Errorf("%d retries, at most %d were put in", n, most)
	}
}
