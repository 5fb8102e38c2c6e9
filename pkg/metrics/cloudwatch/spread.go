package cloudwatch

// spread turns buckets into values in milliseconds, each within its bucket, and
// how often it came. All lie at the same share of their bucket's width, such
// that the average is the true one. Bounds are in seconds, sum in milliseconds.
func spread(bounds []float64, buckets []uint64, sum float64) (values, counts []float64) {
	low := func(i int) float64 {
		if i == 0 {
			return 0
		}
		return 1000 * bounds[i-1]
	}
	high := func(i int) float64 {
		if i < len(bounds) {
			return 1000 * bounds[i]
		}
		return 2 * low(i) // no bound: as if the bounds went on to double
	}
	var base, width float64
	for i, n := range buckets {
		base += float64(n) * low(i)
		width += float64(n) * (high(i) - low(i))
	}
	share := 0.0
	if width > 0 {
		share = min(max((sum-base)/width, 0), 1)
	}
	rest := sum
	for i, n := range buckets {
		if n == 0 {
			continue
		}
		v := low(i) + share*(high(i)-low(i))
		if i == len(bounds) { // nothing bounds what is left
			v = max(v, rest/float64(n))
		}
		rest -= float64(n) * v
		values, counts = append(values, v), append(counts, float64(n))
	}
	return values, counts
}
