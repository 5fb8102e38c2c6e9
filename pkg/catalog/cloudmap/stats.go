package cloudmap

import (
	"cmp"
	"slices"
	"time"
)

// Stats are plain numbers for metrics and status.
type Stats struct {
	Calls      []CallStats // sorted by API and outcome
	Tokens     float64     // in the bucket now; negative is a debt
	Rate       float64     // that come in a second
	Nodes      int         // that the largest index names
	Namespaces []NamespaceStats
	Odd        map[string]int // instances now that do not count, or in part, by reason
	Stale      uint64         // answers that were older than what was known
	Offered    int            // what local tasks serve
	Registered int            // of it, as written
	Seen       int            // of it, as read back
	Cleaned    uint64         // instances of others that this node deregistered
	Away       bool           // GoAway was called
}

// CallStats counts calls of one API with one outcome.
type CallStats struct {
	API, Outcome string
	Count        uint64
}

// NamespaceStats is the state of one namespace.
type NamespaceStats struct {
	Name     string
	AsOf     time.Time // as of when all in demand is known; zero is never
	Demanded int       // services in demand
	Nodes    int       // entries of its index
	Shards   int       // of its index
}

// Stats returns what a Source counts.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.p.Now()
	s.bucket.advance(now)
	out := Stats{
		Tokens: s.bucket.tokens, Rate: s.bucket.rate, Nodes: s.fleet(), Odd: map[string]int{}, Stale: s.stale,
		Offered: len(s.registrar.offers) + len(s.registrar.refused), Cleaned: s.cleaner.cleaned, Away: s.registrar.away,
	}
	for c, a := range s.apis {
		for kind, n := range a.outcomes {
			if n > 0 {
				out.Calls = append(out.Calls, CallStats{string(c), fault(kind).String(), n})
			}
		}
	}
	slices.SortFunc(out.Calls, func(a, b CallStats) int {
		return cmp.Or(cmp.Compare(a.API, b.API), cmp.Compare(a.Outcome, b.Outcome))
	})
	for _, p := range s.registrar.publications {
		if !p.Written.IsZero() {
			out.Registered++
		}
		if p.Seen {
			out.Seen++
		}
	}
	for _, sp := range s.sorted() {
		ns := NamespaceStats{Name: sp.name, AsOf: sp.fresh(now), Nodes: len(sp.entries), Shards: len(sp.shards)}
		for _, sv := range sp.services {
			if sv.demand.IsZero() {
				continue
			}
			ns.Demanded++
			for _, o := range sv.origins() {
				for reason, n := range o.odd {
					out.Odd[reason] += n
				}
			}
		}
		out.Namespaces = append(out.Namespaces, ns)
	}
	return out
}
