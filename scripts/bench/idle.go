package main

import (
	"context"
	"fmt"
	"math"
	"os"
)

const kib = 1 << 10

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
		// A daemon that has carried HTTP/1.1 would have memory to spare.
		if err := st.restart(ctx); err != nil {
			return rows, err
		}
		for _, c := range []struct {
			*contender
			bound bound
		}{{&st.connectd, k.bound}, {&st.haproxy, reported}, {&st.reverse, reported}} {
			each, err := st.idleBytes(ctx, c.contender, k.front, s)
			if err != nil {
				return rows, fmt.Errorf("%s, %s: %w%s", k.what, c.name, err, st.said())
			}
			what := fmt.Sprintf("%s: memory per idle connection, %s", k.what, c.name)
			rows = append(rows, newRow(what, "KiB", c.bound, []float64{each / kib}))
		}
	}
	each, err := st.allocations(ctx, s)
	if err != nil {
		return rows, err
	}
	return append(rows, newRow("32 connections: allocations per request, connectd", "objects", atMost(0.05), each)), nil
}

// idleBytes is the growth of anonymous memory by the second half of the held
// connections, for each: the first takes what a process has to spare from its
// start.
func (st *stage) idleBytes(ctx context.Context, c *contender, front int, s scale) (float64, error) {
	holding := func(count int) error {
		h := hold{Address: c.front[front], HTTP2: front == frontHTTP2, Count: count}
		_, err := st.client.do(order{Hold: &h})
		return err
	}
	if err := holding(s.held / 2); err != nil {
		return 0, err
	}
	before, err := settled(ctx, c.pids[0], s)
	if err != nil {
		return 0, err
	}
	if err := holding(s.held); err != nil {
		return 0, err
	}
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.pids[0])); err != nil || len(fds) < s.held {
		return 0, fmt.Errorf("hold connections: %d descriptors for %d (%w)", len(fds), s.held, err)
	}
	after, err := settled(ctx, c.pids[0], s)
	if err != nil {
		return 0, err
	}
	return (after - before) / float64(s.held-s.held/2), holding(0)
}

// settled is a process's anonymous memory, bytes, once it stays as it is: Go gives
// back in the background what a start, or a load, has left. It is what there is
// by then if that takes too long.
func settled(ctx context.Context, pid int, s scale) (float64, error) {
	const still, tries = 64 * kib, 10
	var last float64
	for range tries {
		if err := pause(ctx, s.settle); err != nil {
			return 0, err
		}
		now, err := anonymous(pid)
		if err != nil {
			return 0, err
		}
		was := last
		if last = float64(now); math.Abs(last-was) < still {
			break
		}
	}
	return last, nil
}

// allocations counts objects that the daemon allocates for a request over a
// kept connection. The daemon allocates without any load too, for one for this
// question, 10,000 or so give or take 2,000; they are taken off, and 0.05 a
// request is what can be told from none.
func (st *stage) allocations(ctx context.Context, s scale) ([]float64, error) {
	load := hammer{Address: st.connectd.front[frontHTTP], Path: "/", Connections: 32, For: s.hammer}
	if _, err := st.client.hammer(load); err != nil {
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
		r, err := st.client.hammer(load)
		if err != nil {
			return each, err
		}
		third, err := st.node.metric("go_memstats_mallocs_total")
		if err != nil {
			return each, err
		}
		each = append(each, (third-second-(second-first))/float64(r.Requests))
	}
	return each, nil
}
