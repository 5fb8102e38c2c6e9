package metrics

// A ledger turns readings of counters into series that only grow. What a
// reading has grown by since the one before is added to the series that the
// object has at that moment: its own, or one that it shares. So
//
//   - a sample that shrinks (live bytes) does not look like a restart,
//   - an object that gets a series of its own, or loses it, takes nothing out
//     of the shared one, which would look like a restart too, and puts nothing
//     in that was counted before, which would look like a burst,
//   - all series together grow by exactly what the readings grew by.
//
// An object counts from the first scrape that finds it in the plan to the last
// reading that has it: what comes and goes between two scrapes is not seen.
//
// What an object's own series showed disappears with that series, as it does
// with every Prometheus target that goes: rate() and increase() stay right.

// grow adds to series by how much now is above its high-water mark, and moves
// the mark. A slice that is too short counts as zeros.
func grow(mark, now, series []uint64) {
	for i := range min(len(mark), len(now)) {
		if now[i] > mark[i] {
			series[i] += now[i] - mark[i]
			mark[i] = now[i]
		}
	}
}

// restarted reports whether a reading that never shrinks has.
func restarted(mark, now []uint64) bool {
	for i := range min(len(mark), len(now)) {
		if now[i] < mark[i] {
			return true
		}
	}
	return false
}

// account is the ledger of one object that never shrinks.
type account struct {
	mark  []uint64
	shown []uint64 // its own series
}

// settle books a reading to the object's own series, or else to shared.
func (a *account) settle(now []uint64, own bool, shared []uint64) {
	if a.mark == nil {
		a.mark = make([]uint64, len(shared))
	}
	if restarted(a.mark, now) {
		clear(a.mark)
	}
	series := shared
	if own {
		if a.shown == nil {
			a.shown = make([]uint64, len(shared))
		}
		series = a.shown
	}
	grow(a.mark, now, series)
}

// The order of an endpoint's counters.
const (
	opened = iota
	failed
	sent
	received
	retransmits
	endpointCounters
)

func (e EndpointStats) counters() [endpointCounters]uint64 {
	return [...]uint64{e.Connections, e.Failures, e.BytesSent, e.BytesReceived, e.Retransmits}
}

// appendHistogram lays h out as n counts and the sum, whatever its length.
func appendHistogram(dst []uint64, h Histogram, n int) []uint64 {
	return append(appendCounts(dst, h.Counts, n), h.SumMicroseconds)
}

func appendCounts(dst, counts []uint64, n int) []uint64 {
	dst = append(dst, counts[:min(n, len(counts))]...)
	for range n - len(counts) {
		dst = append(dst, 0)
	}
	return dst
}

// snapshot copies the object's own series, of which there are n: what a
// scrape is encoded from must not change under it.
func (a *account) snapshot(n int) []uint64 {
	out := make([]uint64, n)
	copy(out, a.shown)
	return out
}
