package plan

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/lb"
)

// makeMembers makes n members; weight and zone say which of each.
func makeMembers(n int, weight func(i int) int, zone func(i int) string) []member {
	out := make([]member, n)
	for i := range out {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		out[i] = member{id: lb.EndpointID(i + 1), addr: netip.AddrPortFrom(addr, 8080), weight: float64(weight(i)), zone: zone(i)}
	}
	return out
}

func one(int) int        { return 1 }
func nowhere(int) string { return "" }

func shares(table []lb.EndpointID) map[lb.EndpointID]int {
	out := make(map[lb.EndpointID]int)
	for _, id := range table {
		out[id]++
	}
	return out
}

func TestInterleave(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    []lb.EndpointID
	}{
		{[]int{1, 1, 1}, []lb.EndpointID{1, 2, 3}},
		{[]int{7, 7}, []lb.EndpointID{1, 2}},
		{[]int{5, 1, 1}, []lb.EndpointID{1, 1, 2, 1, 3, 1, 1}},
		{[]int{2, 4}, []lb.EndpointID{2, 1, 2}},
		{[]int{65535}, []lb.EndpointID{1}},
	} {
		members := makeMembers(len(c.weights), func(i int) int { return c.weights[i] }, nowhere)
		if got, fits := buildTable(members, 0, math.MaxInt32); !slices.Equal(got, c.want) || !fits {
			t.Errorf("weights %d: %d, want %d", c.weights, got, c.want)
		}
	}
}

// TestCoarseTable checks weights that do not fit as they are: within the
// bound, every endpoint present, shares right to a slot.
func TestCoarseTable(t *testing.T) {
	for _, c := range []struct{ n, room int }{{3, 4096}, {3, 100}, {100, 100}, {100, 150}, {4000, 1 << 20}, {5000, 1 << 20}} {
		t.Run(fmt.Sprintf("%d in %d", c.n, c.room), func(t *testing.T) {
			members := makeMembers(c.n, func(i int) int { return 1 + i*i%65521 }, nowhere)
			sum := 0.0
			for _, m := range members {
				sum += m.weight
			}
			table, _ := buildTable(members, 0, c.room)
			if limit := min(c.room, max(maxTable, c.n)); len(table) > limit {
				t.Fatalf("%d slots, at most %d wanted", len(table), limit)
			}
			got := shares(table)
			for _, m := range members {
				due := m.weight / sum * float64(len(table))
				n := float64(got[m.id])
				if n < 1 || n > max(1, math.Ceil(due)) || c.room > 4*c.n && n < due*0.8-1 {
					t.Errorf("endpoint %d has %g slots, due are %g", m.id, n, due)
				}
			}
		})
	}
}

func TestNoRoom(t *testing.T) {
	members := makeMembers(3, one, nowhere)
	if table, fits := buildTable(members, 0, 2); len(table) != 0 || fits {
		t.Errorf("3 endpoints in 2 slots: %d, %v", table, fits)
	}
	if table, fits := buildTable(members, 251, 200); len(table) != 199 || fits {
		t.Errorf("a hash table in 200 slots has %d, %v", len(table), fits)
	}
}

// TestMaglevStability removes each of some endpoints in turn and counts the
// keys of others that move, as the kernel looks keys up.
func TestMaglevStability(t *testing.T) {
	zones := func(n int) func(i int) string { return func(i int) string { return fmt.Sprint("zone-", i%n) } }
	skewed := func(i int) string {
		if i < 20 {
			return "zone-0"
		}
		return fmt.Sprint("zone-", 1+i%2)
	}
	for _, c := range []struct {
		name   string
		n      int
		weight func(int) int
		zone   func(int) string
		own    string
		most   float64
	}{
		{"equal", 100, one, nowhere, "", 0.03},
		{"weights", 100, func(i int) int { return 1 + i%5 }, nowhere, "", 0.03},
		{"steep weights", 100, func(i int) int { return 1 + 99*(i%2) }, nowhere, "", 0.03},
		{"zones, all stays", 100, one, zones(2), "zone-0", 0.03},
		{"zones, some spills", 100, one, skewed, "zone-0", 0.03},
		// The rule for zones itself moves 1.5 % here when a heavy one goes.
		{"zones and weights", 100, func(i int) int { return 1 + i%3 }, skewed, "zone-0", 0.04},
		{"few", 10, one, nowhere, "", 0.03},
		{"many", 600, one, nowhere, "", 0.03},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := makeMembers(c.n, c.weight, c.zone)
			s := &lb.Service{LoadBalancing: lb.LoadBalancing{Policy: lb.SourceHash}, Endpoints: make([]lb.Endpoint, c.n)}
			size := tableSize(s, 0)
			before := maglev(preferZone(slices.Clone(all), c.own), size)
			s.Endpoints = s.Endpoints[1:]
			worst, surplus := 0.0, 0.0
			for gone := 0; gone < c.n; gone += max(1, c.n/8) {
				after := maglev(preferZone(slices.Delete(slices.Clone(all), gone, gone+1), c.own), tableSize(s, size))
				moved := movedShare(before, after, all[gone].id)
				worst = max(worst, moved)
				surplus = max(surplus, moved-mustMove(before, after, all[gone].id))
			}
			t.Logf("%d slots, at worst %.2f %% of the other keys move, %.2f %% without need", size, 100*worst, 100*surplus)
			if worst >= c.most || surplus >= 0.03 {
				t.Errorf("removing one of %d moves %.2f %% of the keys of others, %.2f %% without need", c.n, 100*worst, 100*surplus)
			}
		})
	}
}

func movedShare(before, after []lb.EndpointID, gone lb.EndpointID) float64 {
	kept, moved := 0, 0
	for i := range uint32(20_000) {
		key := taskHashKey(fmt.Sprint("task-", i))
		was, is := before[key%uint32(len(before))], after[key%uint32(len(after))]
		if was == gone {
			continue
		}
		if kept++; was != is {
			moved++
		}
	}
	return float64(moved) / float64(kept)
}

// mustMove is how much the others' shares shrink, for whatever table.
func mustMove(before, after []lb.EndpointID, gone lb.EndpointID) float64 {
	was, is := shares(before), shares(after)
	shrunk := 0.0
	for id, n := range was {
		if id != gone {
			shrunk += max(0, float64(n)/float64(len(before))-float64(is[id])/float64(len(after)))
		}
	}
	return shrunk
}

func TestMaglevShares(t *testing.T) {
	members := makeMembers(50, func(i int) int { return 1 + i%4 }, nowhere)
	got := shares(maglev(members, 8191))
	for _, m := range members {
		due := m.weight / 124 * 8191 // 13+13*2+12*3+12*4 = 123, and one for rounding's sake
		if n := float64(got[m.id]); n < due*0.95 || n > due*1.05 {
			t.Errorf("endpoint %d of weight %g has %g slots, due are %g", m.id, m.weight, n, due)
		}
	}
}

// TestMaglevIgnoresIDs: nodes and restarts give other ids to an address.
func TestMaglevIgnoresIDs(t *testing.T) {
	a, b := makeMembers(20, one, nowhere), makeMembers(20, one, nowhere)
	for i := range b {
		b[i].id += 1000
	}
	x, y := maglev(a, 2039), maglev(b, 2039)
	for i := range x {
		if x[i]+1000 != y[i] {
			t.Fatalf("slot %d is endpoint %d and %d", i, x[i], y[i])
		}
	}
}

// TestTableSizeKept: around a step of sizes an endpoint more or less must not
// move every key.
func TestTableSizeKept(t *testing.T) {
	s := &lb.Service{LoadBalancing: lb.LoadBalancing{Policy: lb.SourceHash}}
	size := uint32(0)
	for _, c := range []struct {
		endpoints int
		want      uint32
	}{{2, 251}, {3, 509}, {2, 509}, {10, 1021}, {11, 1021}, {20, 1021}, {21, 4093}, {10, 4093}, {1, 251}, {100, 32749}, {82, 32749}, {1000, 65521}, {0, 251}} {
		s.Endpoints = make([]lb.Endpoint, c.endpoints)
		before := size
		if size = tableSize(s, size); size != c.want {
			t.Errorf("%d endpoints after %d slots: %d, want %d", c.endpoints, before, size, c.want)
		}
	}
}

func TestPreferZone(t *testing.T) {
	type shares = map[string]float64
	for _, c := range []struct {
		name  string
		own   string
		zones []string // of endpoints with weight 1
		want  shares   // nil: untouched
	}{
		{"no own zone", "", []string{"a", "a", "b", "b"}, nil},
		{"one zone", "a", []string{"a", "a", "a"}, nil},
		{"an unknown zone", "a", []string{"a", "a", "b", ""}, nil},
		{"fewer than two a zone", "a", []string{"a", "b", "b"}, nil},
		{"none in the own zone", "c", []string{"a", "a", "b", "b"}, nil},
		{"even", "a", []string{"a", "a", "b", "b"}, shares{"a": 1}},
		{"more than even", "a", []string{"a", "a", "a", "b"}, shares{"a": 1}},
		{"half stays", "a", []string{"a", "b", "b", "b"}, shares{"a": .5, "b": .5}},
		// 8 endpoints, 3 zones: own share 1/8 of 1/3 stays 3/8; b has 4/8-1/3
		// = 1/6 to spare, c 3/8-1/3 = 1/24: the rest goes 4 to 1.
		{"by residual", "a", []string{"a", "b", "b", "b", "b", "c", "c", "c"}, shares{"a": .375, "b": .5, "c": .125}},
		// c has less than an even share itself and gets nothing.
		{"none to spare", "a", []string{"a", "a", "b", "b", "b", "b", "b", "b", "c", "c"}, shares{"a": .6, "b": .4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := makeMembers(len(c.zones), one, func(i int) string { return c.zones[i] })
			got := preferZone(slices.Clone(members), c.own)
			if c.want == nil {
				if !slices.Equal(got, members) {
					t.Errorf("changed to %v", got)
				}
				return
			}
			zoneOf := make(map[lb.EndpointID]string)
			for _, m := range members {
				zoneOf[m.id] = m.zone
			}
			table, _ := buildTable(got, 0, math.MaxInt32)
			sum := make(shares)
			for _, id := range table {
				sum[zoneOf[id]] += 1 / float64(len(table))
			}
			for z, share := range sum {
				if math.Abs(share-c.want[z]) > 0.001 {
					t.Errorf("zone %s gets %.4f, want %.4f (%d slots)", z, share, c.want[z], len(table))
				}
			}
			if len(sum) != len(c.want) {
				t.Errorf("zones %v, want %v", sum, c.want)
			}
		})
	}
}
