package daemon

import (
	"context"
	"errors"
	"slices"

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
	kernel, err := d.readKernel()
	if err != nil {
		d.log.Warn("read counters for CloudWatch", "error", err)
	}
	accepted, err := d.datapath.Accepted()
	if err != nil && !errors.Is(err, datapath.ErrServeUnsupported) {
		d.log.Warn("read accepted connections for CloudWatch", "error", err)
	}
	r := reading{plan: d.loop.Desired(), kernel: kernel.Endpoints, http: d.readHTTP(), accepted: accepted, port: d.servedAt}
	return r.snapshot()
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

func (d *daemon) runCloudWatch(ctx context.Context) error {
	if d.cloudWatch == nil {
		return nil
	}
	err := d.cloudWatch.Run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// awsSources adds what only some nodes have to what metrics are read from.
func (d *daemon) awsSources(s *metrics.Sources) {
	if d.cloudWatch != nil {
		s.CloudWatch = func() metrics.CloudWatch { return cloudWatchStats(d.cloudWatch.Stats()) }
	}
	if d.registry != nil || d.tasks.node != nil {
		s.Instance = func() metrics.Instance {
			i := d.instance.Stats()
			return metrics.Instance{Notices: i.Notices, Errors: i.Errors, LastSuccess: i.LastSuccess}
		}
	}
}
