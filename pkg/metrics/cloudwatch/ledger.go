package cloudwatch

import (
	"slices"
	"time"
)

// forgetAfter is how long a row's counters are remembered after the last
// reading that had it: one that comes back sooner counts on, and does not look
// like a burst. By then what it counts has gone for good.
const forgetAfter = time.Hour

// ledger turns readings into what has been counted since the one before.
type ledger struct {
	marks map[rowKey]*mark
	began bool // the first reading is where counting begins
}

// rowKey is without the owner: what is known of it later does not make another
// thing that counts.
type rowKey struct {
	side side
	key  string
	name string
}

type mark struct {
	counts []uint64
	seen   time.Time
}

// grown returns by how much each count is above the reading before. Those from
// sampled on may go back without meaning anything; any other that does means
// that all began anew. A row has as many counts in every reading.
func (l *ledger) grown(k rowKey, now []uint64, sampled int, at time.Time) []uint64 {
	m := l.marks[k]
	if m == nil {
		m = &mark{counts: make([]uint64, len(now))}
		l.marks[k] = m
		if !l.began {
			copy(m.counts, now)
		}
	}
	m.seen = at
	for i := range sampled {
		if now[i] < m.counts[i] {
			clear(m.counts)
			break
		}
	}
	out := make([]uint64, len(now))
	for i, n := range now {
		if n > m.counts[i] {
			out[i] = n - m.counts[i]
			m.counts[i] = n
		}
	}
	return out
}

func (l *ledger) forget(at time.Time) {
	for k, m := range l.marks {
		if at.Sub(m.seen) > forgetAfter {
			delete(l.marks, k)
		}
	}
}

// counts lays out a row; the last is sampled.
func (r *Served) counts() []uint64 {
	return []uint64{r.Connections, r.Requests, r.GRPCRequests, r.TLSErrors, r.Bytes}
}

// counts lays out a row: requests, TLS errors, codes, the histogram's counts, of
// which there are n, its sum, and bytes, which are sampled.
func (r *Called) counts(n int) []uint64 {
	out := append([]uint64{r.Requests, r.TLSErrors}, r.Codes[:]...)
	times := r.Time.Counts[:min(n, len(r.Time.Counts))]
	out = append(out, times...)
	out = append(out, slices.Repeat([]uint64{0}, n-len(times))...)
	return append(out, r.Time.SumMicroseconds, r.Bytes)
}
