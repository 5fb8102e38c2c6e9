package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// shot is one measured load on one contender.
type shot struct {
	rate float64 // requests/s
	p99  float64 // us; 0 if it is not known
	cpu  float64 // of the contender, us for each request
	side float64 // requests/s of the load beside it, where there is one
}

func rate(s shot) float64 { return s.rate }
func p99(s shot) float64  { return s.p99 }
func cpu(s shot) float64  { return s.cpu }
func side(s shot) float64 { return s.side }

// way is a contender with an address alone.
func way(name, address string) *contender {
	return &contender{name: name, front: map[int]string{frontHTTP: address}}
}

// shots are by contender and round.
type shots map[*contender][]shot

// rounds has every contender loaded once in each of n rounds, in an order that
// chance (the same in each run) gives and then in its reverse: what drifts, and
// what one leaves to the next, hits all alike.
func rounds(ctx context.Context, n int, all []*contender, fire func(*contender) (shot, error)) (shots, error) {
	seen := shots{}
	chance := rand.New(rand.NewPCG(1, 2))
	var order []int
	for round := range n {
		if round%2 == 0 {
			order = chance.Perm(len(all))
		} else {
			slices.Reverse(order)
		}
		for _, i := range order {
			if err := ctx.Err(); err != nil {
				return seen, err
			}
			s, err := fire(all[i])
			if err != nil {
				return seen, fmt.Errorf("%s: %w", all[i].name, err)
			}
			seen[all[i]] = append(seen[all[i]], s)
		}
	}
	return seen, nil
}

// together makes one shot of every n of a contender: the mean of each figure.
func (s shots) together(n int) shots {
	out := shots{}
	for c, all := range s {
		for some := range slices.Chunk(all, n) {
			var mean shot
			for _, one := range some {
				mean.rate += one.rate / float64(len(some))
				mean.p99 += one.p99 / float64(len(some))
				mean.cpu += one.cpu / float64(len(some))
				mean.side += one.side / float64(len(some))
			}
			out[c] = append(out[c], mean)
		}
	}
	return out
}

// ratios are taken within each round.
func (s shots) ratios(a, b *contender, of func(shot) float64) []float64 {
	out := make([]float64, min(len(s[a]), len(s[b])))
	for i := range out {
		out[i] = of(s[a][i]) / of(s[b][i])
	}
	return out
}

func (s shots) values(c *contender, of func(shot) float64) []float64 {
	var out []float64
	for _, v := range s[c] {
		out = append(out, of(v))
	}
	return out
}

// measured runs fire and charges the contender's CPU time to its requests.
func measured(c *contender, fire func() (requests int, s shot, err error)) (shot, error) {
	before, err := c.cpu()
	if err != nil {
		return shot{}, err
	}
	n, s, err := fire()
	if err != nil {
		return s, err
	}
	after, err := c.cpu()
	s.cpu = microseconds(after-before) / float64(n)
	return s, err
}

func (c *contender) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range c.pids {
		used, err := cpuOfPID(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

func (r result) shot() shot {
	return shot{rate: float64(r.Requests) / r.Took.Seconds(), p99: microseconds(r.P99)}
}

func microseconds(d time.Duration) float64 { return d.Seconds() * 1e6 }
