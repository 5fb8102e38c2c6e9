package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"connectd/pkg/lb"
)

// EVENT_* in bpf/lib/types.h.
const (
	eventCleared     = 2
	eventHTTPStrike  = 3
	eventHTTPCleared = 4
)

// Events hands every strike to fn until ctx ends or Close is called.
func (d *Datapath) Events(ctx context.Context, fn func(lb.Strike)) error {
	return follow(ctx, d.events, func(b []byte) {
		if s, ok := decodeEvent(b); ok {
			fn(s)
		}
	})
}

// follow hands records to fn, which may keep nothing of them.
func follow(ctx context.Context, ring *ringbuf.Reader, fn func([]byte)) error {
	stop := context.AfterFunc(ctx, func() { ring.Flush() })
	defer stop()
	var rec ringbuf.Record
	for {
		err := ring.ReadInto(&rec)
		switch {
		case ctx.Err() != nil || errors.Is(err, ringbuf.ErrClosed):
			return nil
		case errors.Is(err, ringbuf.ErrFlushed):
			continue
		case err != nil:
			return fmt.Errorf("read event ring: %w", err)
		}
		fn(rec.RawSample)
	}
}

func decodeEvent(b []byte) (lb.Strike, bool) {
	var e connectEvent
	if _, err := binary.Decode(b, binary.NativeEndian, &e); err != nil {
		return lb.Strike{}, false
	}
	s := lb.Strike{
		Endpoint: lb.EndpointID(e.Endpoint),
		Task:     lb.TaskID(e.Task),
		Count:    e.Count,
		At:       wall(e.AtNs),
	}
	s.HTTP = e.Kind == eventHTTPStrike || e.Kind == eventHTTPCleared
	if e.Kind == eventCleared || e.Kind == eventHTTPCleared {
		s.Count = 0
	}
	return s, true
}

// wall is the time of a moment that the kernel's monotonic clock showed.
func wall(ns uint64) time.Time { return time.Now().Add(-time.Duration(monotonic() - ns)) }

// Refusal is a call of a task that a hook refused, or a connection that went
// on untracked. The same one is told once a second, and a task's 32 times a
// second in all.
type Refusal struct {
	At       time.Time
	Task     lb.TaskID
	Address  netip.AddrPort // what it asked for: a VIP and port
	Protocol lb.Protocol
	Reason   string // as in Outcomes
	Untold   uint32 // how often since it was told last
}

// Refusals hands every refusal to fn until ctx ends or Close is called,
// beginning with those that nobody has read since an earlier daemon.
func (d *Datapath) Refusals(ctx context.Context, fn func(Refusal)) error {
	return follow(ctx, d.refused, func(b []byte) {
		if r, ok := decodeRefusal(b); ok {
			fn(r)
		}
	})
}

func decodeRefusal(b []byte) (Refusal, bool) {
	var r connectRefusal
	if _, err := binary.Decode(b, binary.NativeEndian, &r); err != nil || int(r.What.Reason) >= len(outcomeNames) {
		return Refusal{}, false
	}
	return Refusal{
		At:       wall(r.AtNs),
		Task:     lb.TaskID(r.What.Task),
		Address:  decodeAddrPort(r.What.Vip, r.What.Port),
		Protocol: lb.Protocol(r.What.Protocol),
		Reason:   outcomeNames[r.What.Reason],
		Untold:   r.Untold,
	}, true
}
