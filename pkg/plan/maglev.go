package plan

import (
	"encoding/binary"

	"connectd/pkg/lb"
)

// primes are the sizes of source hash tables, each about twice the one
// before.
var primes = [...]uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521}

// tableSize returns the size of a service's source hash tables: at least 100
// slots an endpoint, up to 65521. From 50 endpoints on it is 200, so that
// maglev's own noise and a shift between zones together stay under 3 % of the
// keys when one endpoint goes. Another size moves nearly every key, so the one
// before is kept while it is not far off, and the journal keeps it.
func tableSize(s *lb.Service, before uint32) uint32 {
	if s.LoadBalancing.Policy != lb.SourceHash {
		return 0
	}
	// Endpoints of any state count, so that health does not change the size.
	n := uint64(len(s.Endpoints))
	least := 100 * n
	if n >= 50 {
		least = 200 * n
	}
	want := primes[len(primes)-1]
	for _, size := range primes {
		if uint64(size) >= least {
			want = size
			break
		}
	}
	if before != 0 && before >= want/2 && before <= want*9 {
		return before
	}
	return want
}

// maglev fills a table of a prime size so that each member has its share, and
// few keys of others move when one comes or goes (Eisenbud et al., "Maglev: A
// Fast and Reliable Software Network Load Balancer", 3.4). The order in which
// a member wants slots comes from its address: ids differ between nodes and
// restarts. Weights are taken in as in Envoy: per round, a member takes a turn
// each time its share has grown by one of the heaviest's.
func maglev(members []member, size uint32) []lb.EndpointID {
	table := make([]lb.EndpointID, size)
	type cursor struct {
		next, skip uint32
		due        float64
	}
	cursors := make([]cursor, len(members))
	heaviest := 0.0
	for i := range members {
		h := addrHash(&members[i])
		cursors[i] = cursor{next: uint32(h % uint64(size)), skip: 1 + uint32(mix(h)%uint64(size-1))}
		heaviest = max(heaviest, members[i].weight)
	}
	for filled, round := uint32(0), 1.0; ; round++ {
		for i := range members {
			c := &cursors[i]
			if round*members[i].weight < c.due {
				continue
			}
			c.due += heaviest
			for table[c.next] != 0 {
				if c.next += c.skip; c.next >= size {
					c.next -= size
				}
			}
			table[c.next] = members[i].id
			if filled++; filled == size {
				return table
			}
		}
	}
}

func addrHash(m *member) uint64 {
	var b [18]byte
	addr := m.addr.Addr().As16()
	copy(b[:], addr[:])
	binary.BigEndian.PutUint16(b[16:], m.addr.Port())
	return mix(fnv1a(fnvOffset, b[:]))
}

// primeAtMost returns the greatest prime up to n, or 2.
func primeAtMost(n uint32) uint32 {
	for ; n > 2; n-- {
		if isPrime(n) {
			return n
		}
	}
	return 2
}

func isPrime(n uint32) bool {
	for d := uint32(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
