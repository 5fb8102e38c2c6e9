package cloudmap

import (
	"math"

	"connectd/pkg/lb"
)

// weighted is an endpoint with a weight that is no integer yet.
type weighted struct {
	endpoint *lb.Endpoint
	weight   float64
}

// divideShares gives ours percent of new connections and theirs the rest. An
// origin that gets none is draining: a last resort. Where one origin has 650
// times as many endpoints as the other, 1 % is more than that: weights have 16
// bits.
func divideShares(percent int, ours, theirs []lb.Endpoint) {
	a, b := weigh(ours), weigh(theirs)
	if a == 0 || b == 0 {
		return // one of the two is a last resort already
	}
	var all []weighted
	for i := range ours {
		all = append(all, weighted{&ours[i], float64(max(1, ours[i].Weight)) * float64(percent) * float64(b)})
	}
	for i := range theirs {
		all = append(all, weighted{&theirs[i], float64(max(1, theirs[i].Weight)) * float64(100-percent) * float64(a)})
	}
	largest, unit := 0.0, 0.0
	for _, w := range all {
		largest = max(largest, w.weight)
		unit = gcd(unit, w.weight)
	}
	if largest/unit > lb.MaxWeight {
		unit = largest / lb.MaxWeight
	}
	for _, w := range all {
		if w.weight == 0 {
			w.endpoint.Draining = true
			continue
		}
		w.endpoint.Weight = uint16(max(1, math.Round(w.weight/unit)))
	}
}

// gcd is of whole numbers below 2^53, where float64 is exact.
func gcd(a, b float64) float64 {
	for b != 0 {
		a, b = b, math.Mod(a, b)
	}
	return a
}

// weigh sums the weights of those that take new connections.
func weigh(list []lb.Endpoint) (sum uint64) {
	for i := range list {
		if !list[i].Draining {
			sum += uint64(max(1, list[i].Weight))
		}
	}
	return sum
}
