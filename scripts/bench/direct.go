package main

import (
	"context"
	"fmt"
	"time"
)

// A pair is turns short loads of each, one after another: the differences are
// of a few hundredths, and what disturbs a shared machine lasts longer than one.
const (
	turns = 16
	turn  = 25 * time.Millisecond
)

// measureDirect compares a server by the VIPs of a service in mode direct, and
// of one without HTTP, with the same server directly. The load costs so little
// itself that what the hooks cost shows more than with an ordinary client.
func measureDirect(ctx context.Context, st *stage, s scale) ([]row, error) {
	plain, again := way("direct", st.directHTTP), way("direct again", st.directHTTP)
	read, vip := way("mode: direct", st.directVIP), way("TCP service", st.plainVIP)
	var rows []row
	for _, l := range []struct {
		name   string
		hammer hammer
	}{
		{"keep-alive", hammer{Path: "/", Connections: 8}},
		{"new connections", hammer{Path: "/", Connections: 8, Fresh: true}},
		{"1 MiB bodies", hammer{Path: "/mib", Connections: 4}},
	} {
		seen, err := rounds(ctx, s.directPairs*turns, []*contender{plain, read, vip, again}, func(c *contender) (shot, error) {
			h := l.hammer
			h.Address, h.For = c.front[frontHTTP], turn
			r, err := st.client.hammer(h)
			return r.shot(), err
		})
		if err != nil {
			return rows, fmt.Errorf("%s: %w", l.name, err)
		}
		seen = seen.together(turns)
		add := func(name string, b bound, samples []float64) {
			rows = append(rows, newRow(l.name+": "+name, "", b, samples))
		}
		add("requests/s mode: direct / direct", atLeast(0.97), seen.ratios(read, plain, rate))
		add("requests/s TCP service / direct", reported, seen.ratios(vip, plain, rate))
		add("requests/s direct / direct (noise)", reported, seen.ratios(again, plain, rate))
		rows = append(rows, newRow(l.name+": requests/s direct", "/s", reported, seen.values(plain, rate)))
	}
	return rows, nil
}
