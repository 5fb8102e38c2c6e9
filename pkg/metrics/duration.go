package metrics

import (
	"slices"
	"sync/atomic"
	"time"
)

// DurationBounds are the upper bounds, in seconds, of the buckets of all
// durations that the daemon itself measures: 1 ms is a probe in the same
// zone, 10 s the longest sensible probe timeout.
var DurationBounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

const durationBuckets = 14 // len(DurationBounds) + 1

// DurationRecorder counts durations by DurationBounds. The zero value is
// ready; all methods may be called at once.
type DurationRecorder struct {
	counts [durationBuckets]atomic.Uint64
	micros atomic.Uint64
}

// Observe counts one duration.
func (r *DurationRecorder) Observe(d time.Duration) {
	r.counts[bucketOf(d)].Add(1)
	r.micros.Add(uint64(max(d, 0).Microseconds()))
}

// Histogram returns what was observed so far.
func (r *DurationRecorder) Histogram() Histogram {
	h := Histogram{Counts: make([]uint64, durationBuckets), SumMicroseconds: r.micros.Load()}
	for i := range r.counts {
		h.Counts[i] = r.counts[i].Load()
	}
	return h
}

func bucketOf(d time.Duration) int {
	i, _ := slices.BinarySearch(DurationBounds, d.Seconds())
	return i
}
