package datapath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func mustTake(t *testing.T, a *slotAllocator, count uint32, now time.Time) span {
	t.Helper()
	s, err := a.take(count, now)
	if err != nil {
		t.Fatalf("take %d: %s (free %v, retired %v)", count, err, a.free, a.retired)
	}
	return s
}

func TestSlotsQuarantine(t *testing.T) {
	a := newSlotAllocator(10)
	first := mustTake(t, &a, 6, epoch)
	if none := mustTake(t, &a, 0, epoch); none != (span{}) {
		t.Errorf("no slots are %v", none)
	}
	if _, err := a.take(5, epoch); !errors.Is(err, errSlotsFull) {
		t.Errorf("five of four free: %v", err)
	}
	a.retire(first, epoch)
	a.retire(span{}, epoch)
	if _, err := a.take(5, epoch.Add(slotQuarantine-1)); !errors.Is(err, errSlotsFull) {
		t.Errorf("within the quarantine: %v", err)
	}
	if got := mustTake(t, &a, 10, epoch.Add(slotQuarantine)); got != (span{0, 10}) {
		t.Errorf("after the quarantine %v, want all, joined", got)
	}
}

// TestSlotsDiscard: what was never published may be used again at once.
func TestSlotsDiscard(t *testing.T) {
	a := newSlotAllocator(8)
	s := serviceSlots{v4: mustTake(t, &a, 4, epoch), v6: mustTake(t, &a, 4, epoch)}
	a.discard(s)
	a.discard(serviceSlots{})
	if got := mustTake(t, &a, 8, epoch); got != (span{0, 8}) {
		t.Errorf("took %v", got)
	}
}

func TestSlotsMerge(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}} {
		a := newSlotAllocator(9)
		parts := []span{mustTake(t, &a, 3, epoch), mustTake(t, &a, 3, epoch), mustTake(t, &a, 3, epoch)}
		for _, i := range order {
			a.put(parts[i])
		}
		if want := []span{{0, 9}}; !slices.Equal(a.free, want) {
			t.Errorf("put back in order %v: %v", order, a.free)
		}
	}
}

func TestSlotsClaim(t *testing.T) {
	for name, test := range map[string]struct {
		claims []span
		free   []span
	}{
		"none":             {[]span{{5, 0}}, []span{{0, 10}}},
		"beginning":        {[]span{{0, 3}}, []span{{3, 7}}},
		"middle":           {[]span{{3, 4}}, []span{{0, 3}, {7, 3}}},
		"end":              {[]span{{7, 3}}, []span{{0, 7}}},
		"all":              {[]span{{0, 10}}, nil},
		"twice":            {[]span{{3, 4}, {3, 4}}, []span{{0, 3}, {7, 3}}},
		"neighbours":       {[]span{{3, 2}, {5, 2}}, []span{{0, 3}, {7, 3}}},
		"beyond the end":   {[]span{{8, 4}}, []span{{0, 10}}},
		"wraps around":     {[]span{{8, 1<<32 - 4}}, []span{{0, 10}}},
		"in any order":     {[]span{{8, 1}, {1, 1}, {4, 1}}, []span{{0, 1}, {2, 2}, {5, 3}, {9, 1}}},
		"within a claimed": {[]span{{2, 6}, {3, 2}}, []span{{0, 2}, {8, 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newSlotAllocator(10)
			for _, c := range test.claims {
				a.claim(c)
			}
			if len(a.free) != len(test.free) || !slices.Equal(a.free, test.free) {
				t.Errorf("free are %v, want %v", a.free, test.free)
			}
		})
	}
}

// TestSlotsRandom: no slot is ever given twice, none is given within its
// quarantine, and none is lost.
func TestSlotsRandom(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { randomSlots(t, rand.New(rand.NewPCG(seed, 5))) })
	}
}

func randomSlots(t *testing.T, rnd *rand.Rand) {
	const size = 200
	a := newSlotAllocator(size)
	now := epoch
	var used [size]bool
	var until [size]time.Time // end of the quarantine
	var held []span
	given := func(s span) {
		t.Helper()
		for i := s.base; i < s.end(); i++ {
			if used[i] || now.Before(until[i]) {
				t.Fatalf("slot %d is given: used %v, resting until %s, now %s", i, used[i], until[i], now)
			}
			used[i] = true
		}
		held = append(held, s)
	}
	for range rnd.IntN(6) { // what an earlier daemon left
		s := span{uint32(rnd.IntN(size)), uint32(1 + rnd.IntN(20))}
		if s.end() > size || slices.ContainsFunc(held, func(h span) bool { return s.base < h.end() && h.base < s.end() }) {
			continue
		}
		a.claim(s)
		a.claim(s)
		given(s)
	}
	refused := 0
	for range 2000 {
		now = now.Add(time.Duration(rnd.IntN(1000)) * time.Millisecond)
		if rnd.IntN(2) == 0 || len(held) == 0 {
			s, err := a.take(uint32(1+rnd.IntN(40)), now)
			if err != nil {
				refused++
				continue
			}
			given(s)
			continue
		}
		i := rnd.IntN(len(held))
		s := held[i]
		held = slices.Delete(held, i, i+1)
		rests := rnd.IntN(4) > 0
		if rests {
			a.retire(s, now)
		} else {
			a.discard(serviceSlots{v4: s})
		}
		for k := s.base; k < s.end(); k++ {
			used[k] = false
			if rests {
				until[k] = now.Add(slotQuarantine)
			}
		}
	}
	if refused == 0 {
		t.Error("there was always room: the test tests little")
	}
	for _, s := range held {
		a.retire(s, now)
	}
	now = now.Add(slotQuarantine)
	used, held = [size]bool{}, nil
	given(mustTake(t, &a, size, now))
}

// TestSlotsOfAService is how Apply moves a service: new range, then retire.
func TestSlotsOfAService(t *testing.T) {
	a := newSlotAllocator(6)
	d := &Datapath{slots: a}
	d.slots.held[1] = serviceSlots{v4: mustTake(t, &d.slots, 2, epoch)}
	next := serviceSlots{v4: mustTake(t, &d.slots, 2, epoch), v6: mustTake(t, &d.slots, 2, epoch)}
	d.retireSlots(1, epoch)
	d.retireSlots(1, epoch) // held no more: nothing is retired twice
	d.retireSlots(lb.ServiceID(2), epoch)
	d.slots.held[1] = next
	if got := mustTake(t, &d.slots, 2, epoch.Add(slotQuarantine)); got != (span{0, 2}) {
		t.Errorf("took %v", got)
	}
	if _, err := d.slots.take(1, epoch.Add(time.Hour)); err == nil {
		t.Error("a held range was given")
	}
}
