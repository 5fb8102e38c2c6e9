package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// bars are what the forwarder is held against under one load. The zero value
// is only reported.
type bars struct {
	haproxy, pair, reverse bound // requests/s
	p99, cpu               bound // against HAProxy
}

// forwardLoad is a kind of HTTP/1 traffic through proxies.
type forwardLoad struct {
	name   string // in the tables
	hammer hammer
	turns  int  // short loads of each that make one shot; 0: one long one
	few    bool // half of the rounds: it has no bar
	beside bool // bulk runs beside it
	bars   bars
}

var smallLoads = []forwardLoad{
	{name: "1 connection", hammer: hammer{Path: "/", Connections: 1}, turns: 3,
		bars: bars{haproxy: atLeast(1), reverse: atLeast(2), p99: atMost(1), cpu: atMost(0.9)}},
	{name: "32 connections", hammer: hammer{Path: "/", Connections: 32}, turns: 3,
		bars: bars{haproxy: atLeast(1), pair: atLeast(1.6), reverse: atLeast(2), p99: atMost(1), cpu: atMost(0.9)}},
	{name: "256 connections", hammer: hammer{Path: "/", Connections: 256}, few: true},
	{name: "32 at once, new connections", hammer: hammer{Path: "/", Connections: 32, Fresh: true}, few: true},
}

var bulkLoads = []forwardLoad{
	{name: "1 MiB, 1 connection", hammer: hammer{Path: "/mib", Connections: 1}, bars: bars{haproxy: atLeast(1)}},
	{name: "1 MiB, 4 connections", hammer: hammer{Path: "/mib", Connections: 4}, bars: bars{haproxy: atLeast(1)}},
}

var mixedLoads = []forwardLoad{
	{name: "8 connections beside 4 of 1 MiB", hammer: hammer{Path: "/", Connections: 8}, beside: true, bars: bars{p99: atMost(1.1)}},
}

func measureSmallRequests(ctx context.Context, st *stage, s scale) ([]row, error) {
	return measureForward(ctx, st, s, smallLoads, st.contenders())
}

func measureBulk(ctx context.Context, st *stage, s scale) ([]row, error) {
	return measureForward(ctx, st, s, bulkLoads, []*contender{&st.connectd, &st.haproxy, &st.again, &st.reverse})
}

func measureMixed(ctx context.Context, st *stage, s scale) ([]row, error) {
	return measureForward(ctx, st, s, mixedLoads, []*contender{&st.connectd, &st.haproxy, &st.again})
}

func measureForward(ctx context.Context, st *stage, s scale, loads []forwardLoad, all []*contender) ([]row, error) {
	var rows []row
	for _, l := range loads {
		n := s.rounds
		if l.few {
			n = max(n/2, 2)
		}
		l.turns = max(l.turns, 1)
		l.hammer.For = s.hammer / time.Duration(l.turns)
		seen, err := rounds(ctx, n*l.turns, all, func(c *contender) (shot, error) { return st.strike(c, l) })
		if err != nil {
			return rows, fmt.Errorf("%s: %w%s", l.name, err, st.said())
		}
		rows = append(rows, forwardRows(st, seen.together(l.turns), l.name, l.bars)...)
	}
	return rows, nil
}

// strike is one load on one contender.
func (st *stage) strike(c *contender, l forwardLoad) (shot, error) {
	l.hammer.Address = c.front[frontHTTP]
	if l.beside {
		bulk := hammer{Address: l.hammer.Address, Path: "/mib", Connections: 4, For: l.hammer.For}
		if _, err := st.bulk.do(order{Hammer: &bulk}); err != nil {
			return shot{}, err
		}
	}
	if _, err := st.client.do(order{Hammer: &l.hammer}); err != nil {
		return shot{}, err
	}
	return measured(c, func() (int, shot, error) {
		if l.beside {
			if err := st.bulk.send(order{Strike: true}); err != nil {
				return 0, shot{}, err
			}
		}
		d, err := st.client.do(order{Strike: true})
		s := d.Result.shot()
		if l.hammer.Path != "/" {
			s.p99 = 0 // of too few requests
		}
		if l.beside {
			beside, besideErr := st.bulk.wait()
			err = errors.Join(err, besideErr)
			s.side = beside.Result.shot().rate
		}
		return d.Result.Requests, s, err
	})
}

// forwardRows compares, under one load, what was seen of connectd with what
// was seen of the others.
func forwardRows(st *stage, seen shots, what string, b bars) []row {
	me, one := &st.connectd, &st.haproxy
	versus := func(figure string, bar bound, other *contender, of func(shot) float64) row {
		return newRow(fmt.Sprintf("%s: %s, connectd / %s", what, figure, other.name), "", bar, seen.ratios(me, other, of))
	}
	noise := func(figure string, of func(shot) float64) row {
		return newRow(fmt.Sprintf("%s: %s, HAProxy / HAProxy (noise)", what, figure), "", reported, seen.ratios(&st.again, one, of))
	}
	rows := []row{versus("requests/s", b.haproxy, one, rate), noise("requests/s", rate)}
	for _, other := range []struct {
		*contender
		bar bound
	}{{&st.pair, b.pair}, {&st.reverse, b.reverse}} {
		if len(seen[other.contender]) > 0 {
			rows = append(rows, versus("requests/s", other.bar, other.contender, rate))
		}
	}
	if seen[me][0].p99 > 0 {
		judged := versus("p99", b.p99, one, p99)
		judged.noise = noiseOf(seen.ratios(&st.again, one, p99))
		rows = append(rows, judged, noise("p99", p99))
	}
	if seen[me][0].side > 0 { // CPU time is of both loads
		return append(rows, newRow(what+": the 1 MiB requests/s, connectd / HAProxy", "", reported, seen.ratios(me, one, side)))
	}
	return append(rows, versus("CPU per request", b.cpu, one, cpu), noise("CPU per request", cpu),
		newRow(what+": requests/s, connectd", "/s", reported, seen.values(me, rate)),
		newRow(what+": CPU per request, connectd", "us", reported, seen.values(me, cpu)))
}
