package health

import (
	"math/rand/v2"
	"testing"
	"time"

	"connectd/pkg/lb"
)

func TestSchedulerOrder(t *testing.T) {
	c := &check{HealthCheck: tcpCheck(1, 1)}
	s := scheduler{limit: 1 << 20}
	r := rand.New(rand.NewPCG(1, 2))
	list := make([]*target, 500)
	for i := range list {
		list[i] = &target{id: lb.EndpointID(i), check: c, due: time.Duration(r.IntN(1000)), slow: i%3 == 0}
		s.add(list[i])
	}
	for i := 0; i < len(list); i += 5 {
		s.remove(list[i])
	}
	var last time.Duration
	for taken := 0; ; taken++ {
		next := s.next()
		tg := s.take(1000)
		if tg == nil {
			if taken != 400 || next != never {
				t.Fatalf("took %d, next is %s; want 400 and never", taken, next)
			}
			return
		}
		if tg.due < last || tg.due != next || tg.id%5 == 0 {
			t.Fatalf("took %d due %d after one due %d, next said %d", tg.id, tg.due, last, next)
		}
		last = tg.due
	}
}

func TestSchedulerKeepsSlotsFromTheSlow(t *testing.T) {
	c := &check{HealthCheck: tcpCheck(1, 1)}
	s := scheduler{limit: 4}
	for range 10 {
		s.add(&target{check: c, slow: true})
	}
	a, b := s.take(0), s.take(0)
	if a == nil || b == nil || s.take(0) != nil || s.next() != never {
		t.Fatalf("slow targets took %d of 4 slots, want 2", s.inFlight)
	}
	prompt := &target{check: c, due: 5}
	s.add(prompt)
	if s.next() != 5 || s.take(4) != nil || s.take(5) != prompt {
		t.Fatal("a prompt target does not get the slot kept for it")
	}
	s.done(a)
	if tg := s.take(5); tg == nil || !tg.slow {
		t.Fatal("a slow target does not get the slot of another")
	}
	if s.slowInFlight != 2 || s.inFlight != 3 {
		t.Fatalf("%d slow of %d in flight, want 2 of 3", s.slowInFlight, s.inFlight)
	}
}

func TestSchedulerOneSlotIsForAll(t *testing.T) {
	s := scheduler{limit: 1}
	s.add(&target{check: &check{HealthCheck: tcpCheck(1, 1)}, slow: true})
	if s.take(0) == nil {
		t.Fatal("a slow target is never probed with one slot")
	}
}

func TestSchedulerCountsLate(t *testing.T) {
	c := &check{HealthCheck: tcpCheck(1, 1)}
	s := scheduler{limit: 10}
	s.add(&target{check: c})
	s.take(time.Second)
	if s.late != 0 {
		t.Fatal("a tenth of the interval is late")
	}
	s.add(&target{check: c})
	s.take(time.Second + 1)
	if s.late != 1 {
		t.Fatal("more than a tenth of the interval is not late")
	}
}
