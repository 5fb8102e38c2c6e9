package plan

// preferZone keeps traffic in the node's own zone by the rules of Envoy's
// zone aware routing, as far as the capacity there allows:
//
//   - It does nothing unless every member's zone is known, there are two zones
//     at least, the own among them, and two members a zone on average.
//   - Callers are taken to be spread evenly over the zones, for a node does
//     not know the others.
//   - When the own zone's share of the capacity is at least its share of the
//     callers, all traffic stays. Otherwise the ratio of the two stays, and
//     the rest goes to other zones in proportion to what they have beyond
//     their own callers' need.
//
// It returns the members that get traffic, their weights set; members itself
// is overwritten.
func preferZone(members []member, own string) []member {
	if own == "" {
		return members
	}
	var zones []zone
	total, ownWeight := 0.0, 0.0
	for i := range members {
		m := &members[i]
		if m.zone == "" {
			return members
		}
		total += m.weight
		if m.zone == own {
			ownWeight += m.weight
		}
		zones = addToZone(zones, m)
	}
	n := float64(len(zones))
	if len(zones) < 2 || len(members) < 2*len(zones) || ownWeight == 0 {
		return members
	}
	if ownWeight*n >= total {
		return reweigh(members, func(m *member) float64 {
			if m.zone == own {
				return m.weight
			}
			return 0
		})
	}
	residual := 0.0
	for _, z := range zones {
		residual += z.residual(total, n)
	}
	stays := ownWeight * n / total
	return reweigh(members, func(m *member) float64 {
		if m.zone == own {
			return stays * m.weight / ownWeight
		}
		z := zones[zoneIndex(zones, m.zone)]
		return (1 - stays) * z.residual(total, n) / residual * m.weight / z.weight
	})
}

type zone struct {
	name   string
	weight float64
}

// residual is what a zone has beyond an even share of the traffic.
func (z zone) residual(total, zones float64) float64 { return max(0, z.weight*zones-total) }

func zoneIndex(zones []zone, name string) int {
	for i := range zones {
		if zones[i].name == name {
			return i
		}
	}
	return -1
}

func addToZone(zones []zone, m *member) []zone {
	if i := zoneIndex(zones, m.zone); i >= 0 {
		zones[i].weight += m.weight
		return zones
	}
	return append(zones, zone{m.zone, m.weight})
}

// reweigh sets weights and drops members whose weight is 0.
func reweigh(members []member, weight func(*member) float64) []member {
	kept := members[:0]
	for i := range members {
		m := members[i]
		if m.weight = weight(&members[i]); m.weight > 0 {
			kept = append(kept, m)
		}
	}
	return kept
}
