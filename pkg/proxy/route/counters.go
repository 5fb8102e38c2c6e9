package route

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// Buckets of durations: powers of two microseconds as those of the kernel's
	// histograms (HISTOGRAM_BUCKETS and HISTOGRAM_SHIFT in bpf/lib/types.h), so
	// that proxy and direct mode fill the same metric.
	Buckets = 20
	shift   = 4

	classes      = 6  // by first digit of the status; 0: there was no response
	grpcStatuses = 18 // 0 to 16, and all others
)

// Counters count requests, or tries. They only grow.
type Counters struct {
	Classes  [classes]atomic.Uint64
	GRPC     [grpcStatuses]atomic.Uint64
	Duration [Buckets]atomic.Uint64
	Sum      atomic.Uint64 // of durations, microseconds
	Received atomic.Uint64 // body bytes from clients
	Sent     atomic.Uint64 // body bytes to clients
}

// Done counts one. status 0 is no response, grpc below 0 is none.
func (c *Counters) Done(status, grpc int, took time.Duration, received, sent int64) {
	class := status / 100
	if class < 0 || class >= classes {
		class = 0
	}
	c.Classes[class].Add(1)
	if grpc >= 0 {
		c.GRPC[min(grpc, grpcStatuses-1)].Add(1)
	}
	us := uint64(max(0, took.Microseconds()))
	// Bucket n holds what is below 2^(n+shift) microseconds.
	c.Duration[min(bits.Len64(us>>shift), Buckets-1)].Add(1)
	c.Sum.Add(us)
	if received > 0 {
		c.Received.Add(uint64(received))
	}
	if sent > 0 {
		c.Sent.Add(uint64(sent))
	}
}
