package daemon

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"connectd/pkg/datapath"
	"connectd/pkg/metrics"
	"connectd/pkg/metrics/cloudwatch"
	"connectd/pkg/plan"
)

// openCloudWatch makes the publisher, if the config has one. It reads nothing
// from AWS.
func (d *daemon) openCloudWatch(c *Config) error {
	if c.CloudWatch == nil || !c.CloudWatch.Enabled {
		return nil
	}
	selection, err := cloudwatch.Select(c.CloudWatch.Metrics...)
	if err != nil {
		return err
	}
	region := ""
	if c.CloudMap != nil && c.CloudMap.Region != regionAuto {
		region = c.CloudMap.Region
	}
	d.cloudWatch = cloudwatch.New(cloudwatch.Params{
		API: cloudwatch.Dial(region), Namespace: c.CloudWatch.Namespace, Period: c.CloudWatch.Period, Metrics: selection,
		Bounds: histogramSeconds(), Read: d.readCloudWatch, Log: d.log.With("component", "cloudwatch"),
	})
	return nil
}

func histogramSeconds() []float64 {
	bounds := datapath.HistogramBounds()
	seconds := make([]float64, len(bounds))
	for i, b := range bounds {
		seconds[i] = b.Seconds()
	}
	return seconds
}

func (d *daemon) readCloudWatch() cloudwatch.Snapshot {
	accepted, err := d.datapath.Accepted()
	if err != nil && !errors.Is(err, datapath.ErrServeUnsupported) {
		d.log.Warn("read accepted connections for CloudWatch", "error", err)
	}
	r := reading{plan: d.loop.Desired(), proxied: d.readProxied(), direct: d.directRequests(), accepted: accepted, port: d.servedAt}
	if r.plan != nil {
		if err := d.readCallers(r.plan); err != nil {
			d.log.Warn("read counters of callers for CloudWatch", "error", err)
		}
		r.called = d.callers.totals
	}
	return r.snapshot()
}

// readCallers brings what is known of callers up to date. After an error it is
// what it was.
func (d *daemon) readCallers(p *plan.Desired) error {
	if _, err := d.readKernel(); err != nil { // samples live connections
		return err
	}
	d.live.mu.Lock()
	r := callerReading{sum: maps.Clone(d.live.callers)}
	d.live.mu.Unlock()
	var err error
	if r.ended, err = d.datapath.CallerBytes(); err != nil {
		return err
	}
	if r.http, err = d.datapath.HTTPCallers(); err != nil {
		return err
	}
	d.callers.settle(p, &r)
	return nil
}

// servedAt is where in its network namespace a task serves an endpoint.
func (d *daemon) servedAt(s plan.Served) (at datapath.Port, ok bool) {
	if d.tasks.node == nil {
		return at, false
	}
	if at.Number, ok = d.tasks.node.ListensAt(s.Endpoint.Address); !ok {
		return at, false
	}
	p := d.plan()
	i := slices.IndexFunc(p.Tasks, func(t *plan.Task) bool { return t.Name == s.Endpoint.Task })
	if i < 0 {
		return at, false
	}
	at.Netns = p.Tasks[i].NetnsCookie
	if at.Netns == 0 {
		var err error
		at.Netns, err = d.cookie()
		return at, err == nil
	}
	return at, true
}

// countAccepted has the kernel count what local tasks accept, while CloudWatch
// wants it. Without it other metrics go out all the same.
func (d *daemon) countAccepted(p *plan.Desired) {
	var ports []datapath.Port
	if d.cloudWatch != nil {
		ports = servedPorts(p, d.servedAt)
	}
	err := d.datapath.Serve(ports)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != d.serveError {
		d.log.Warn("accepted connections are not counted", "error", err)
	}
	d.serveError = text
}

// awsCalls counts calls of ECS that lookups made.
type awsCalls struct {
	mu     sync.Mutex
	counts map[[2]string]uint64
}

func (c *awsCalls) observe(action, result string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[[2]string]uint64{}
	}
	c.counts[[2]string{action, result}]++
}

// metrics are those of the registry too.
func (d *daemon) callMetrics() []metrics.Call {
	sum := map[[2]string]uint64{}
	d.lookups.mu.Lock()
	maps.Copy(sum, d.lookups.counts)
	d.lookups.mu.Unlock()
	if d.registry != nil {
		for _, c := range d.registry.Stats().Calls {
			sum[[2]string{c.API, c.Outcome}] += c.Count
		}
	}
	out := make([]metrics.Call, 0, len(sum))
	for k, n := range sum {
		out = append(out, metrics.Call{API: k[0], Outcome: k[1], Count: n})
	}
	return out
}

func (d *daemon) registryMetrics() metrics.Registry {
	s := d.registry.Stats()
	out := metrics.Registry{
		Tokens: s.Tokens, AsOf: map[string]time.Time{}, Offered: s.Offered, Registered: s.Registered, Seen: s.Seen,
		Cleaned: s.Cleaned, Stale: s.Stale,
	}
	for _, n := range s.Namespaces {
		out.AsOf[n.Name] = n.AsOf
		out.Demanded += n.Demanded
	}
	for reason, n := range s.Odd {
		out.Ignored = append(out.Ignored, metrics.Counter{Reason: reason, Value: uint64(n)})
	}
	return out
}

// awsSources adds what only some nodes have to what metrics are read from.
func (d *daemon) awsSources(s *metrics.Sources) {
	if d.cloudWatch != nil {
		s.CloudWatch = func() metrics.CloudWatch { return cloudWatchStats(d.cloudWatch.Stats()) }
	}
	if d.registry != nil {
		s.Registry = d.registryMetrics
	}
	if d.registry != nil || d.tasks.node != nil {
		s.AWS = d.callMetrics
		s.Instance = func() metrics.Instance {
			i := d.instance.Stats()
			return metrics.Instance{Notices: i.Notices, Errors: i.Errors, LastSuccess: i.LastSuccess}
		}
	}
}
