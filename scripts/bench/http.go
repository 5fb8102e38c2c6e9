package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// httpTurns short loads of each way, one after another, make a pair.
const httpTurns = 3

// workload is a kind of HTTP traffic.
type workload struct {
	name  string
	path  string
	fresh bool // a new connection for each request
}

var workloads = []workload{
	{"HTTP, keep-alive", "/", false},
	{"HTTP, new connections", "/", true},
	{"HTTP, 1 MiB bodies", "/mib", false},
}

const loadClients = 8

// measureHTTP compares a server by its VIP with the same server directly, and
// the latter with itself, which is the noise.
func measureHTTP(ctx context.Context, r *rig, s scale) ([]row, error) {
	vip, err := r.node.vip(ctx, "http")
	if err != nil {
		return nil, err
	}
	server := fmt.Sprintf("%s:%d", serverAddress, httpPort)
	direct, again := way("direct", server), way("direct again", server)
	byVIP := way("by VIP", netip.AddrPortFrom(vip, 80).String())
	var rows []row
	for _, w := range workloads {
		requests, err := calibrate(r.client, w, server, s.leg)
		if err != nil {
			return rows, err
		}
		seen, err := rounds(ctx, s.httpPairs*httpTurns, []*contender{direct, byVIP, again}, func(c *contender) (shot, error) {
			return measureLeg(r, w, c.front[frontHTTP], requests)
		})
		if err != nil {
			return rows, fmt.Errorf("%s: %w", w.name, err)
		}
		seen = seen.together(httpTurns)
		rows = append(rows,
			newRow(w.name+": requests/s by VIP / direct", "", atLeast(0.97), seen.ratios(byVIP, direct, rate)),
			newRow(w.name+": requests/s direct / direct (noise)", "", reported, seen.ratios(again, direct, rate)),
			newRow(w.name+": CPU per request by VIP / direct", "", reported, seen.ratios(byVIP, direct, cpu)),
			newRow(w.name+": CPU per request direct / direct (noise)", "", reported, seen.ratios(again, direct, cpu)),
			newRow(w.name+": CPU per request direct, client and server", "us", reported, seen.values(direct, cpu)),
		)
	}
	return rows, nil
}

// calibrate finds how many requests take about as long as a leg should.
func calibrate(client *peer, w workload, target string, want time.Duration) (int, error) {
	for requests := 64; ; requests *= 4 {
		d, err := client.do(w.order(target, requests))
		if err != nil {
			return 0, err
		}
		if d.Took > want/8 {
			return max(int(float64(requests)*want.Seconds()/d.Took.Seconds()), loadClients), nil
		}
	}
}

func (w workload) order(target string, requests int) order {
	return order{Load: &load{URL: "http://" + target + w.path, Requests: requests, Clients: loadClients, NewConnections: w.fresh}}
}

// measureLeg has the CPU time of client and server together.
func measureLeg(r *rig, w workload, target string, requests int) (shot, error) {
	before, err := cpuOf(r.client, r.server)
	if err != nil {
		return shot{}, err
	}
	d, err := r.client.do(w.order(target, requests))
	if err != nil {
		return shot{}, err
	}
	after, err := cpuOf(r.client, r.server)
	n := float64(requests)
	return shot{rate: n / d.Took.Seconds(), cpu: microseconds(after-before) / n}, err
}

func cpuOf(peers ...*peer) (time.Duration, error) {
	var sum time.Duration
	for _, p := range peers {
		used, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
