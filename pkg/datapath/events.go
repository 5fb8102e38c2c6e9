package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	stop := context.AfterFunc(ctx, func() { d.events.Flush() })
	defer stop()
	var rec ringbuf.Record
	for {
		err := d.events.ReadInto(&rec)
		switch {
		case ctx.Err() != nil || errors.Is(err, ringbuf.ErrClosed):
			return nil
		case errors.Is(err, ringbuf.ErrFlushed):
			continue
		case err != nil:
			return fmt.Errorf("read event ring: %w", err)
		}
		if s, ok := decodeEvent(rec.RawSample); ok {
			fn(s)
		}
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
		At:       time.Now().Add(-time.Duration(monotonic() - e.AtNs)),
	}
	s.HTTP = e.Kind == eventHTTPStrike || e.Kind == eventHTTPCleared
	if e.Kind == eventCleared || e.Kind == eventHTTPCleared {
		s.Count = 0
	}
	return s, true
}
