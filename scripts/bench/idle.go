package main

import (
	"context"
	"fmt"
	"time"
)

const kib = 1 << 10

// settle is how long memory may take to show what connections cost.
const settle = 2 * time.Second

// measureIdle measures what connections that did one request cost their proxy
// while nothing happens on them, and what it allocates for a request.
func measureIdle(ctx context.Context, st *stage, s scale) ([]row, error) {
	var rows []row
	for _, k := range []struct {
		what  string
		front int
		bound bound
	}{
		{"HTTP/1.1", frontHTTP, atMost(2)},
		{"HTTP/2", frontHTTP2, atMost(24)},
	} {
		// A daemon that has carried loads would have memory to spare.
		if err := st.restart(ctx); err != nil {
			return rows, err
		}
		for _, c := range []struct {
			*contender
			bound bound
		}{{&st.connectd, k.bound}, {&st.haproxy, reported}, {&st.reverse, reported}} {
			each, err := st.idleBytes(ctx, c.contender, k.front, s.held)
			if err != nil {
				return rows, fmt.Errorf("%s, %s: %w%s", k.what, c.name, err, st.said())
			}
			what := fmt.Sprintf("proxy, %s: memory per idle connection, %s", k.what, c.name)
			rows = append(rows, newRow(what, "KiB", c.bound, []float64{each / kib}))
		}
	}
	each, err := st.allocations(ctx, s)
	if err != nil {
		return rows, err
	}
	return append(rows, newRow("proxy, 32 connections: allocations per request, connectd", "objects", atMost(0.01), each)), nil
}

// idleBytes is the growth of anonymous memory by held connections, for each,
// after a first load.
func (st *stage) idleBytes(ctx context.Context, c *contender, front, held int) (float64, error) {
	steps := func(holds ...hold) error {
		for _, h := range holds {
			h.Address, h.HTTP2 = c.front[front], front == frontHTTP2
			if _, err := st.client.do(order{Hold: &h}); err != nil {
				return err
			}
		}
		return pause(ctx, settle)
	}
	if err := steps(hold{Count: holdAtOnce}, hold{}); err != nil {
		return 0, err
	}
	before, err := anonymous(c.pids[0])
	if err != nil {
		return 0, err
	}
	if err := steps(hold{Count: held}); err != nil {
		return 0, err
	}
	after, err := anonymous(c.pids[0])
	if err != nil {
		return 0, err
	}
	return (float64(after) - float64(before)) / float64(held), steps(hold{})
}

// allocations counts objects that the daemon allocates for a request over a
// kept connection. The daemon allocates without any load too, for one for this
// question; so much is taken off.
func (st *stage) allocations(ctx context.Context, s scale) ([]float64, error) {
	load := hammer{Address: st.connectd.front[frontHTTP], Path: "/", Connections: 32, For: s.hammer}
	if _, err := st.client.do(order{Hammer: &load}); err != nil {
		return nil, err
	}
	load.For = s.allocation
	var each []float64
	for range s.allocations {
		first, err := st.node.metric("go_memstats_mallocs_total")
		if err != nil {
			return each, err
		}
		if err := pause(ctx, s.allocation); err != nil {
			return each, err
		}
		second, err := st.node.metric("go_memstats_mallocs_total")
		if err != nil {
			return each, err
		}
		d, err := st.client.do(order{Hammer: &load})
		if err != nil {
			return each, err
		}
		third, err := st.node.metric("go_memstats_mallocs_total")
		if err != nil {
			return each, err
		}
		each = append(each, (third-second-(second-first))/float64(d.Result.Requests))
	}
	return each, nil
}
