package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// legTurns short loads of each way, one after another, make the legs of a pair.
const legTurns = 3

// leg is one measured load.
type leg struct {
	took time.Duration // of all requests
	cpu  time.Duration // of client and server together
}

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

// measureHTTP compares a server by its VIP with the same server directly. A turn
// is direct, VIP, direct, in an order that rotates and turns round: whatever
// drifts, and what one leaves to the next, hits all three alike. The two direct
// ones against each other are the noise.
func measureHTTP(ctx context.Context, r *rig, s scale) ([]row, error) {
	vip, err := r.node.vip(ctx, "http")
	if err != nil {
		return nil, err
	}
	server := fmt.Sprintf("%s:%d", serverAddress, httpPort)
	targets := [3]string{server, netip.AddrPortFrom(vip, 80).String(), server}
	var rows []row
	for _, w := range workloads {
		requests, err := calibrate(r.client, w, server, s.leg)
		if err != nil {
			return rows, err
		}
		var rate, same, cpu, cpuSame, each []float64
		for round := range s.httpPairs {
			var legs [3]leg
			for i := range legTurns * len(legs) {
				turn, at := i/len(legs), i%len(legs)
				if (turn+round)%2 == 1 {
					at = len(legs) - 1 - at
				}
				at = (at + round) % len(legs)
				if err := ctx.Err(); err != nil {
					return rows, err
				}
				one, err := measureLeg(r, w, targets[at], requests)
				if err != nil {
					return rows, fmt.Errorf("%s: %w", w.name, err)
				}
				legs[at].took, legs[at].cpu = legs[at].took+one.took, legs[at].cpu+one.cpu
			}
			direct, byVIP, again := legs[0], legs[1], legs[2]
			rate = append(rate, direct.took.Seconds()/byVIP.took.Seconds())
			same = append(same, direct.took.Seconds()/again.took.Seconds())
			cpu = append(cpu, byVIP.cpu.Seconds()/direct.cpu.Seconds())
			cpuSame = append(cpuSame, again.cpu.Seconds()/direct.cpu.Seconds())
			each = append(each, float64(direct.cpu.Nanoseconds())/float64(legTurns*requests)/1e3)
		}
		rows = append(rows,
			newRow(w.name+": requests/s by VIP / direct", "", atLeast(0.97), rate),
			newRow(w.name+": requests/s direct / direct (noise)", "", reported, same),
			newRow(w.name+": CPU per request by VIP / direct", "", reported, cpu),
			newRow(w.name+": CPU per request direct / direct (noise)", "", reported, cpuSame),
			newRow(w.name+": CPU per request direct, client and server", "us", reported, each),
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

func measureLeg(r *rig, w workload, target string, requests int) (leg, error) {
	before, err := cpuOf(r.client, r.server)
	if err != nil {
		return leg{}, err
	}
	d, err := r.client.do(w.order(target, requests))
	if err != nil {
		return leg{}, err
	}
	after, err := cpuOf(r.client, r.server)
	return leg{took: d.Took, cpu: after - before}, err
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
