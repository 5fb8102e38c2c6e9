package cloudwatch

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

// Bounds of CloudWatch.
const (
	maxValues = 150  // values of one datum
	maxData   = 1000 // data of one call
	// maxBytes of one call, before compression, is 1 MB; the rest is for the
	// namespace and an estimate that may be off.
	maxBytes = 900_000
	// maxAge is two weeks, but for an hour's worth of clocks that differ.
	maxAge = 14*24*time.Hour - time.Hour
)

// maxQueued data is half an hour of a node with 100 services in use, and some
// 15 MB.
const maxQueued = 50_000

// queue holds data on their way, oldest first.
type queue struct {
	data []types.MetricDatum
	full uint64 // dropped for want of room
	old  uint64 // dropped because CloudWatch takes none so old
}

func (q *queue) push(data []types.MetricDatum) {
	q.data = append(q.data, data...)
	if over := len(q.data) - maxQueued; over > 0 {
		q.drop(over)
		q.full += uint64(over)
	}
}

// drop takes the n oldest off.
func (q *queue) drop(n int) {
	clear(q.data[:n]) // what they point to is free at once
	q.data = q.data[n:]
	if len(q.data) == 0 {
		q.data = nil
	}
}

// expire drops what is too old at now.
func (q *queue) expire(now time.Time) {
	n := 0
	for n < len(q.data) && now.Sub(*q.data[n].Timestamp) > maxAge {
		n++
	}
	q.drop(n)
	q.old += uint64(n)
}

// batch returns the oldest data that one call takes, at most limit of them and
// at least one if there is any.
func (q *queue) batch(limit int) []types.MetricDatum {
	bytes := 0
	for i := range q.data {
		bytes += size(&q.data[i])
		if i == limit || i > 0 && bytes > maxBytes {
			return q.data[:i]
		}
	}
	return q.data
}

// size estimates the bytes of a datum on the wire from above: in CBOR a member
// is its name and at most 9 bytes of head or number.
func size(d *types.MetricDatum) int {
	const datum, dimension, number = 140, 30, 9
	n := datum + len(*d.MetricName) + len(d.Unit) + number*(len(d.Values)+len(d.Counts))
	for i := range d.Dimensions {
		n += dimension + len(*d.Dimensions[i].Name) + len(*d.Dimensions[i].Value)
	}
	return n
}
