package cloudmap

import (
	"reflect"
	"testing"
	"time"
)

// A shard that does not exist yet is polled like the others, and that it still
// is not there must cost nothing: not the directory of a whole fleet.
func TestAbsentShardChangesNothing(t *testing.T) {
	w := newWorld(t, 0)
	a := w.node("i-a")
	a.Offer([]Offer{a.offer("t1", "web")}, true)
	w.run(time.Minute)
	sp := a.spaces["prod"]
	if len(sp.entries) != 1 {
		t.Fatalf("the index has %d entries: want 1", len(sp.entries))
	}
	sp.addShard(a.p.Prefix)
	next := sp.shards[1]
	w.run(time.Minute)
	if !next.known {
		t.Fatal("the next shard was not looked for")
	}
	entries, checked := reflect.ValueOf(sp.entries).Pointer(), next.checked
	w.run(time.Minute)
	if !next.checked.After(checked) {
		t.Fatal("the next shard was not polled again")
	}
	if reflect.ValueOf(sp.entries).Pointer() != entries {
		t.Error("all entries were put together anew though nothing changed")
	}
}
