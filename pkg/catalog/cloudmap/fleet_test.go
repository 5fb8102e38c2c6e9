package cloudmap

import (
	"strconv"
	"testing"
	"time"
)

// In a large fleet a node's savings are for what it serves itself: 5,000 nodes
// that read what has changed with 200 calls each, saved up, would be a million
// calls at once of an account that has 2,000.
func TestSavingsOfLargeFleet(t *testing.T) {
	for nodes, want := range map[int]int{1: burst, 100: burst, 1000: fleetBurst / 1000, 5000: fleetBurst / 5000, 50000: readsLeast} {
		w := newWorld(t, 0)
		a := w.node("i-a")
		w.run(time.Minute)
		sp := a.spaces["prod"]
		clear(sp.entries)
		for i := range nodes {
			sp.entries[strconv.Itoa(i)] = &indexEntry{}
		}
		now := w.clock.Now()
		a.bucket.tokens, a.reads.tokens = burst, burst
		a.setRate()
		a.bucket.advance(now)
		a.reads.advance(now)
		taken := func(c class) (n int) {
			for ; ; n++ {
				var busy bool
				ch := &chooser{s: a.Source, now: now, wake: now.Add(idle)}
				ch.offer(job{call: callDiscover, class: c, due: now, busy: &busy})
				if !ch.any {
					return n
				}
				a.pay(c)
			}
		}
		reads := min(want, burst-reserve) // of the node's own bucket some is left
		if got := taken(classChange); got != reads {
			t.Errorf("of %d nodes one makes %d reads of changes at once: want %d", nodes, got, reads)
		}
		if got := taken(classRegister); got != burst+debt-reads {
			t.Errorf("of %d nodes one makes %d registrations after that: want %d", nodes, got, burst+debt-reads)
		}
	}
}
