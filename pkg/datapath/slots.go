package datapath

import (
	"errors"
	"slices"
	"time"

	"connectd/pkg/lb"
)

// slotQuarantine is how long a range of slots is left alone after the last
// frontend that named it is gone: a hook may have read that frontend just
// before and reads the slots just after. Hooks take microseconds; ten seconds
// cover a preempted one.
const slotQuarantine = 10 * time.Second

var errSlotsFull = errors.New("no room for slots (raise limits.maxSlots)")

// span is a range of the slots array.
type span struct{ base, count uint32 }

func (s span) end() uint32 { return s.base + s.count }

// serviceSlots are the published ranges of one service.
type serviceSlots struct{ v4, v6 span }

// slotAllocator gives out ranges of the slots array, first fit.
type slotAllocator struct {
	free    []span // sorted by base, never adjacent
	retired []retiredSpan
	held    map[lb.ServiceID]serviceSlots
}

type retiredSpan struct {
	span
	at time.Time
}

func newSlotAllocator(size uint32) slotAllocator {
	return slotAllocator{free: []span{{0, size}}, held: make(map[lb.ServiceID]serviceSlots)}
}

// take gives out count slots; none for 0.
func (a *slotAllocator) take(count uint32, now time.Time) (span, error) {
	if count == 0 {
		return span{}, nil
	}
	if s, ok := a.firstFit(count); ok {
		return s, nil
	}
	a.reclaim(now)
	if s, ok := a.firstFit(count); ok {
		return s, nil
	}
	return span{}, errSlotsFull
}

func (a *slotAllocator) firstFit(count uint32) (span, bool) {
	for i := range a.free {
		f := &a.free[i]
		if f.count < count {
			continue
		}
		s := span{f.base, count}
		f.base += count
		f.count -= count
		if f.count == 0 {
			a.free = slices.Delete(a.free, i, i+1)
		}
		return s, true
	}
	return span{}, false
}

// retire hands a range back; it is given out again after the quarantine.
func (a *slotAllocator) retire(s span, now time.Time) {
	if s.count > 0 {
		a.retired = append(a.retired, retiredSpan{s, now})
	}
}

func (a *slotAllocator) reclaim(now time.Time) {
	n := 0
	for n < len(a.retired) && now.Sub(a.retired[n].at) >= slotQuarantine {
		a.put(a.retired[n].span)
		n++
	}
	a.retired = slices.Delete(a.retired, 0, n)
}

// put returns a range to the free list, joined with its neighbours.
func (a *slotAllocator) put(s span) {
	i, _ := slices.BinarySearchFunc(a.free, s.base, func(f span, base uint32) int { return int(f.base) - int(base) })
	a.free = slices.Insert(a.free, i, s)
	if i+1 < len(a.free) && a.free[i].end() == a.free[i+1].base {
		a.free[i].count += a.free[i+1].count
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].end() == a.free[i].base {
		a.free[i-1].count += a.free[i].count
		a.free = slices.Delete(a.free, i, i+1)
	}
}

// claim takes a range that the kernel is already using out of the free list.
// Ranges shared by several frontends are claimed once.
func (a *slotAllocator) claim(s span) {
	i := slices.IndexFunc(a.free, func(f span) bool { return f.base <= s.base && s.end() <= f.end() })
	if s.count == 0 || i < 0 || s.end() < s.base { // a frontend we did not write may say anything
		return
	}
	f := a.free[i]
	a.free = slices.Delete(a.free, i, i+1)
	for _, rest := range []span{{f.base, s.base - f.base}, {s.end(), f.end() - s.end()}} {
		if rest.count > 0 {
			a.put(rest)
		}
	}
}

// discard returns ranges that were never published: no quarantine.
func (a *slotAllocator) discard(s serviceSlots) {
	for _, r := range []span{s.v4, s.v6} {
		if r.count > 0 {
			a.put(r)
		}
	}
}
