package cloudwatch

import (
	"cmp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"connectd/pkg/lb"
)

// series is one metric under one set of dimensions. The zero owner is the
// discovery name alone.
type series struct {
	metric metric
	name   string
	owner  lb.Owner
}

// total is what one period adds up to.
type total struct {
	value   float64
	targets uint64   // RequestCountPerTarget: what value is divided by
	counts  []uint64 // TargetResponseTime
	micros  uint64
}

// period adds up the rows of one reading by series.
type period struct {
	selection Selection
	totals    map[series]*total
	invalid   uint64 // rows that CloudWatch would refuse
}

// each calls add for the two series of a metric that a row counts for.
func (p *period) each(m metric, name string, owner lb.Owner, add func(*total)) {
	if !p.selection.has(m) {
		return
	}
	for _, o := range [...]lb.Owner{{}, owner} {
		s := series{m, name, o}
		t := p.totals[s]
		if t == nil {
			t = new(total)
			p.totals[s] = t
		}
		add(t)
		if owner == (lb.Owner{}) {
			return
		}
	}
}

func (p *period) add(m metric, name string, owner lb.Owner, n uint64) {
	if n > 0 {
		p.each(m, name, owner, func(t *total) { t.value += float64(n) })
	}
}

// check says whether a row's names can be dimensions.
func (p *period) check(name string, owner lb.Owner) bool {
	ok := validDimension(name) && (owner == lb.Owner{} || validDimension(owner.Service()) && validDimension(owner.Cluster()))
	if !ok {
		p.invalid++
	}
	return ok
}

func (p *period) served(l *ledger, r *Served, at time.Time) {
	if !p.check(r.DiscoveryName, r.Owner) {
		return
	}
	now := r.counts()
	d := l.grown(rowKey{served, r.Key, r.DiscoveryName}, now, len(now)-1, at)
	p.add(activeConnectionCount, r.DiscoveryName, r.Owner, r.Active)
	for i, m := range [...]metric{newConnectionCount, requestCount, grpcRequestCount, clientTLSErrors, processedBytes} {
		p.add(m, r.DiscoveryName, r.Owner, d[i])
	}
}

func (p *period) called(l *ledger, r *Called, buckets int, at time.Time) {
	if !p.check(r.DiscoveryName, r.Owner) {
		return
	}
	now := r.counts(buckets)
	d := l.grown(rowKey{called, r.Key, r.DiscoveryName}, now, len(now)-1, at)
	requests, d := d[0], d[1:]
	for i, m := range [...]metric{targetTLSErrors, target2XX, target3XX, target4XX, target5XX} {
		p.add(m, r.DiscoveryName, r.Owner, d[i])
	}
	times, micros, bytes := d[5:5+buckets], d[5+buckets], d[6+buckets]
	p.add(targetProcessedBytes, r.DiscoveryName, r.Owner, bytes)
	if requests > 0 && r.Targets > 0 {
		p.each(requestCountPerTarget, r.DiscoveryName, r.Owner, func(t *total) {
			t.value += float64(requests)
			t.targets = max(t.targets, r.Targets) // all callers see the same ones
		})
	}
	if slices.ContainsFunc(times, func(n uint64) bool { return n > 0 }) {
		p.each(targetResponseTime, r.DiscoveryName, r.Owner, func(t *total) { t.observe(times, micros) })
	}
}

func (t *total) observe(counts []uint64, micros uint64) {
	if t.counts == nil {
		t.counts = make([]uint64, len(counts))
	}
	for i, n := range counts {
		t.counts[i] += n
	}
	t.micros += micros
}

// data returns what to send, sorted.
func (p *period) data(bounds []float64, at time.Time) []types.MetricDatum {
	order := make([]series, 0, len(p.totals))
	for s := range p.totals {
		order = append(order, s)
	}
	slices.SortFunc(order, func(a, b series) int {
		return cmp.Or(cmp.Compare(a.metric, b.metric), cmp.Compare(a.name, b.name),
			cmp.Compare(a.owner.Cluster(), b.owner.Cluster()), cmp.Compare(a.owner.Service(), b.owner.Service()))
	})
	var out []types.MetricDatum
	for _, s := range order {
		out = append(out, p.totals[s].data(s, bounds, at)...)
	}
	return out
}

// data returns one datum, or as many as a distribution takes.
func (t *total) data(s series, bounds []float64, at time.Time) []types.MetricDatum {
	d := types.MetricDatum{
		MetricName: &table[s.metric].name, Unit: table[s.metric].unit, Dimensions: s.dimensions(), Timestamp: &at,
	}
	if t.counts == nil {
		if t.targets > 0 {
			t.value /= float64(t.targets)
		}
		d.Value = &t.value
		return []types.MetricDatum{d}
	}
	var out []types.MetricDatum
	values, counts := spread(bounds, t.counts, float64(t.micros)/1000)
	for len(values) > 0 {
		n := min(maxValues, len(values))
		d.Values, d.Counts = values[:n:n], counts[:n:n]
		values, counts = values[n:], counts[n:]
		out = append(out, d)
	}
	return out
}

func (s series) dimensions() []types.Dimension {
	name := "DiscoveryName"
	if table[s.metric].side == called {
		name = "TargetDiscoveryName"
	}
	out := []types.Dimension{{Name: &name, Value: &s.name}}
	if s.owner != (lb.Owner{}) {
		out = append(out,
			types.Dimension{Name: aws.String("ServiceName"), Value: aws.String(s.owner.Service())},
			types.Dimension{Name: aws.String("ClusterName"), Value: aws.String(s.owner.Cluster())})
	}
	return out
}
