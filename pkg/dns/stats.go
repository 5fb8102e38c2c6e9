package dns

import "sync/atomic"

// Stats counts messages from tasks since New, each in exactly one field.
type Stats struct {
	Answered      uint64 // with an address
	NoData        uint64 // a name of ours, but not of the type asked for
	Forwarded     uint64 // UDP: answered by the task's resolver; TCP: handed to it
	FormErr       uint64 // malformed, answered FORMERR
	BadVersion    uint64 // unknown EDNS version, answered BADVERS
	Dropped       uint64 // no query at all, or too many in flight
	UpstreamError uint64 // the task's resolver refused or could not be reached
	Timeout       uint64 // the task's resolver said nothing
}

type counters [outcomes]atomic.Uint64

func (c *counters) count(o outcome) { c[o].Add(1) }

// Stats returns the counters.
func (r *Responder) Stats() Stats {
	c := &r.counters
	return Stats{
		Answered:      c[answered].Load(),
		NoData:        c[nodata].Load(),
		Forwarded:     c[forwarded].Load(),
		FormErr:       c[formErr].Load(),
		BadVersion:    c[badVersion].Load(),
		Dropped:       c[dropped].Load(),
		UpstreamError: c[upstreamError].Load(),
		Timeout:       c[timedOut].Load(),
	}
}
