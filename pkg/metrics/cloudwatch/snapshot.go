// Package cloudwatch publishes what connectd counts to Amazon CloudWatch,
// under the names, units and dimensions of Service Connect's own metrics.
//
// A Publisher reads a Snapshot of counters each period and sends what they have
// grown by. It holds what CloudWatch does not take, up to a bound, and counts
// what it drops.
package cloudwatch

import "connectd/pkg/lb"

// Snapshot is one reading of everything. Its rows are counted since some moment
// in the past, each by itself: a Publisher sees that a row began anew by a
// count that has gone back.
type Snapshot struct {
	Served []Served
	Called []Called
}

// Served counts what tasks that serve a discovery name got. Rows of one name
// and owner are added up, so that what is known by different parts of connectd
// may stand in rows of their own; zeros are not sent.
type Served struct {
	// Key is that of the thing that counts, unique among rows of its kind and
	// the same as long as it counts on. Two things that come and go by
	// themselves never share one, or a sum that falls looks like a restart.
	Key           string
	DiscoveryName string
	Owner         lb.Owner // of the server; what a row grows by is its present owner's

	Active       uint64 // connections open now
	Connections  uint64 // accepted
	Bytes        uint64 // of payload both ways; may go back a little, for it is sampled
	Requests     uint64
	GRPCRequests uint64
	TLSErrors    uint64 // handshakes that failed
}

// Called counts what tasks of this node did with a discovery name.
type Called struct {
	Key           string   // as Served.Key
	DiscoveryName string   // of the target
	Owner         lb.Owner // of the caller

	Targets   uint64    // endpoints that take new requests now; 0 leaves RequestCountPerTarget out
	Requests  uint64    // with and without a response
	Codes     [4]uint64 // responses 2xx to 5xx
	Bytes     uint64    // as Served.Bytes
	Time      Histogram // from a request to its response
	TLSErrors uint64
}

// Histogram is a distribution of durations. Counts has one more entry than
// Params.Bounds, for what is above the last, and is not cumulative.
type Histogram struct {
	Counts          []uint64
	SumMicroseconds uint64
}
