package plan

import (
	"math"
	"net/netip"
	"slices"

	"connectd/pkg/lb"
)

// maxTable is how many slots weights and zones are resolved into. A service
// with more endpoints than that has one slot for each.
const maxTable = 4096

// member is one eligible endpoint of a table. Weights are shares relative to
// each other; those of a catalog are whole.
type member struct {
	id     lb.EndpointID
	addr   netip.AddrPort
	zone   string
	weight float64
}

// counts of the endpoints of a service that were offered to clients, by state.
type counts struct{ active, unhealthy, ejected int }

func census(endpoints []Endpoint) (c counts) {
	for i := range endpoints {
		switch endpoints[i].State {
		case lb.StateActive:
			c.active++
		case lb.StateUnhealthy:
			c.unhealthy++
		case lb.StateEjected:
			c.ejected++
		}
	}
	return c
}

// panics says whether so few of the endpoints that could serve are healthy
// that health is to be ignored. Pending ones were never offered to clients and
// do not count.
func (c counts) panics(thresholdPercent uint8) bool {
	exposed := c.active + c.unhealthy + c.ejected
	return c.active*100 < exposed*int(thresholdPercent)
}

// fillSlots builds the tables of both families. short says that there was not
// room for the tables as they should be.
func (p *Planner) fillSlots(r *service, next *Service, endpoints []Endpoint) (short bool) {
	p.slotsInUse -= r.slots()
	for _, v4 := range [...]bool{true, false} {
		members := p.scratch.members[:0]
		for i := range endpoints {
			e := &endpoints[i]
			if e.Address.Addr().Is4() == v4 && p.eligible(r, next, e) {
				members = append(members, member{e.ID, e.Address, e.Zone, float64(max(1, e.Weight))})
			}
		}
		p.scratch.members = members
		if !next.Panic && !next.LastResort {
			members = preferZone(members, p.cfg.Zone)
		}
		room := p.cfg.MaxSlots - p.slotsInUse
		table, fits := buildTable(members, r.traits.table, room)
		short = short || !fits
		p.slotsInUse += len(table)
		if v4 {
			next.SlotsV4 = table
		} else {
			next.SlotsV6 = table
		}
	}
	if was := r.planned; was != nil {
		if slices.Equal(was.SlotsV4, next.SlotsV4) {
			next.SlotsV4 = was.SlotsV4
		}
		if slices.Equal(was.SlotsV6, next.SlotsV6) {
			next.SlotsV6 = was.SlotsV6
		}
	}
	return short
}

func (p *Planner) eligible(r *service, s *Service, e *Endpoint) bool {
	switch e.State {
	case lb.StateActive:
		return true
	case lb.StateUnhealthy, lb.StateEjected:
		return s.Panic
	case lb.StateDraining:
		return s.LastResort && p.wasExposed(r, e)
	}
	return false
}

// buildTable makes a table of at most room slots; size is that of a source
// hash table, 0 for the other policies. fits is false when room made it
// coarser than it should be, or empty.
func buildTable(members []member, size uint32, room int) (table []lb.EndpointID, fits bool) {
	switch {
	case len(members) == 0:
		return nil, true
	case room < len(members):
		return nil, false
	case size == 0 || len(members) == 1:
		limit := max(maxTable, len(members))
		return interleave(members, slotCounts(members, min(limit, room))), room >= limit || fitsExactly(members, room)
	case int(size) <= room:
		return maglev(members, size), true
	}
	return maglev(members, primeAtMost(uint32(room))), false
}

// fitsExactly says whether the weights need no rounding in a table of limit
// slots.
func fitsExactly(members []member, limit int) bool {
	_, ok := exactCounts(members, limit)
	return ok
}

// slotCounts turns weights into numbers of slots, each at least one and limit
// at most in sum. limit is at least the number of members.
func slotCounts(members []member, limit int) []int {
	if c, ok := exactCounts(members, limit); ok {
		return c
	}
	return apportion(members, limit)
}

// exactCounts finds the smallest table that has the weights' exact ratio.
func exactCounts(members []member, limit int) ([]int, bool) {
	out := make([]int, len(members))
	sum, whole := 0.0, true
	for i := range members {
		sum += members[i].weight
		whole = whole && members[i].weight == math.Trunc(members[i].weight)
	}
	if whole {
		divisor := 0
		for i := range members {
			out[i] = int(members[i].weight)
			divisor = gcd(divisor, out[i])
		}
		for i := range out {
			out[i] /= divisor
		}
		return out, sum/float64(divisor) <= float64(limit)
	}
	// Shares that spilled over from a zone are fractions, most of a small
	// denominator.
	for size := len(members); size <= limit; size++ {
		if wholeShares(members, float64(size)/sum, out) {
			return out, true
		}
	}
	return nil, false
}

func wholeShares(members []member, scale float64, out []int) bool {
	for i := range members {
		share := members[i].weight * scale
		n := math.Round(share)
		if n < 1 || math.Abs(share-n) > 1e-9*n {
			return false
		}
		out[i] = int(n)
	}
	return true
}

// apportion gives each member its share of seats by largest remainder. One
// whose share is less than a seat gets one, at the cost of all others.
func apportion(members []member, seats int) []int {
	out := make([]int, len(members))
	for {
		sum := 0.0
		for i := range members {
			if out[i] == 0 {
				sum += members[i].weight
			}
		}
		raised := false
		left := seats
		for i := range members {
			if out[i] == 0 && members[i].weight*float64(seats) < sum {
				out[i], raised = 1, true
				left--
			}
		}
		if !raised {
			fillShares(members, out, seats, sum)
			return out
		}
		seats = left
	}
}

// fillShares spreads seats over the members that have none yet; each is due
// one at least.
func fillShares(members []member, out []int, seats int, sum float64) {
	type rest struct {
		index int
		part  float64
	}
	var rests []rest
	left := seats
	for i := range members {
		if out[i] != 0 {
			continue
		}
		share := members[i].weight * float64(seats) / sum
		out[i] = max(1, int(share))
		left -= out[i]
		rests = append(rests, rest{i, share - float64(out[i])})
	}
	slices.SortStableFunc(rests, func(a, b rest) int {
		switch {
		case a.part > b.part:
			return -1
		case a.part < b.part:
			return 1
		}
		return 0
	})
	for i := 0; i < left && len(rests) > 0; i++ {
		out[rests[i%len(rests)].index]++
	}
}

// interleave spreads the slots of each member evenly, as nginx's smooth
// weighted round robin does, so that a burst does not hit one endpoint.
func interleave(members []member, counts []int) []lb.EndpointID {
	total := 0
	for _, n := range counts {
		total += n
	}
	table := make([]lb.EndpointID, total)
	if total == len(members) {
		for i := range members {
			table[i] = members[i].id
		}
		return table
	}
	current := make([]int, len(members))
	for slot := range table {
		best := 0
		for i, n := range counts {
			current[i] += n
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		table[slot] = members[best].id
	}
	return table
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
