package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/metrics"
)

const (
	// maxLiveBytes bounds how many live connections are asked for their byte
	// counts in one round: at some 5 us each that is 100 ms of one core.
	maxLiveBytes = 20000
	// liveBytesAge is how old these counts may be: two Prometheus servers and
	// a person do not triple the work.
	liveBytesAge = 5 * time.Second
	// hangTime without a round of the main loop is what /livez calls dead:
	// rounds come every 30 s at the latest, and none takes seconds.
	hangTime = 2 * time.Minute
)

// endedCounter counts connections that connectd ended or forgot.
type endedCounter struct{ terminated, swept atomic.Uint64 }

// liveBytes remembers, for a moment, what endpoints with live connections had
// moved in all when it was sampled.
type liveBytes struct {
	mu    sync.Mutex
	at    time.Time
	total map[lb.EndpointID]datapath.Bytes
	// callers is the same by caller, where CloudWatch wants it.
	callers map[datapath.Caller]datapath.Bytes
}

func (d *daemon) serveMetrics(ctx context.Context) error {
	return metrics.New(d.sources()).Serve(ctx, d.scrapes)
}

func (d *daemon) sources() metrics.Sources {
	seconds := histogramSeconds()
	probes := d.probes.Source()
	out := metrics.Sources{
		Log:       d.log.With("component", "metrics"),
		Desired:   d.loop.Planned,
		Kernel:    metrics.KernelSource{Reasons: datapath.FailureReasons(), Bounds: seconds, Read: d.readKernel},
		Probes:    probes,
		HTTP:      d.httpSource(seconds),
		Ejections: d.ejected.Totals,
		Terminated: func() []metrics.Counter {
			return []metrics.Counter{{Reason: "endpoint", Value: d.ended.terminated.Load()}}
		},
		DNS:       d.dnsCounters,
		Events:    d.events.counters,
		Off:       func() bool { return !d.offSince().IsZero() },
		Reconcile: d.reconcileMetrics,
		Catalog:   d.catalogMetrics,
		Config:    d.reload.metrics,
		Heartbeat: d.loop.Heartbeat,
		Build:     metrics.Build{Version: Version, Revision: Commit},
		Live:      d.alive,
		Ready:     d.notReady,
	}
	d.awsSources(&out)
	if d.docker != nil {
		out.TaskProblems = d.problemCounters
		out.DockerUp = func() bool { return d.docker.Status().Connected }
	}
	return out
}

func (d *daemon) alive() error {
	if since := time.Since(d.loop.Heartbeat()); since > hangTime && time.Since(d.started) > hangTime {
		return fmt.Errorf("main loop last went round %s ago", since.Round(time.Second))
	}
	return nil
}

// notReady names what a start still waits for.
func (d *daemon) notReady() []string {
	if d.ready.Load() {
		return nil
	}
	select {
	case <-d.loop.InForce():
		return []string{"tasks"}
	default:
		return []string{"plan", "tasks"}
	}
}

func (d *daemon) readKernel() (metrics.Kernel, error) {
	p := d.loop.Desired()
	if p == nil {
		return metrics.Kernel{}, nil
	}
	k := metrics.Kernel{
		Endpoints: make(map[lb.EndpointID]metrics.EndpointStats),
		Services:  make(map[lb.ServiceID]metrics.ServiceStats),
	}
	for _, s := range p.Services {
		used := false
		for i := range s.Endpoints {
			id := s.Endpoints[i].ID
			c := d.datapath.Endpoint(id)
			if c.Opened == 0 && c.Failed == 0 {
				continue
			}
			used = true
			k.Endpoints[id] = metrics.EndpointStats{
				Active: c.Active, Connections: c.Opened, Failures: c.Failed, Retransmits: c.Retransmits,
				BytesSent: c.Sent, BytesReceived: c.Received,
			}
		}
		if used {
			k.Services[s.ID] = serviceStats(d.datapath.Service(s.ID))
		}
	}
	d.addLiveBytes(k.Endpoints)
	return k, d.readNode(&k)
}

func serviceStats(c datapath.ServiceCounters) metrics.ServiceStats {
	return metrics.ServiceStats{
		Failures:    c.Failures,
		ConnectTime: metrics.Histogram{Counts: c.ConnectTime.Buckets, SumMicroseconds: uint64(c.ConnectTime.Sum.Microseconds())},
		SRTT:        metrics.Histogram{Counts: c.SRTT.Buckets, SumMicroseconds: uint64(c.SRTT.Sum.Microseconds())},
	}
}

// readNode adds what is counted for the whole node.
func (d *daemon) readNode(k *metrics.Kernel) error {
	outcomes, err := d.datapath.Outcomes()
	if err != nil {
		return err
	}
	k.EventsLost = outcomes["event_lost"]
	delete(outcomes, "event_lost") // has a metric of its own
	for reason, n := range outcomes {
		k.Outcomes = append(k.Outcomes, metrics.Counter{Reason: reason, Value: n})
	}
	k.Outcomes = append(k.Outcomes, metrics.Counter{Reason: "missed_close", Value: d.ended.swept.Load()})
	maps, err := d.datapath.Maps()
	for _, m := range maps {
		k.Maps = append(k.Maps, metrics.MapFill(m))
	}
	return err
}

// addLiveBytes adds what connections that are open have moved: the kernel adds
// that to its counters only when they end. The counters were read before, and
// a sample is kept as a sum with them, so a connection that ends meanwhile is
// late by one sample and never counted twice.
func (d *daemon) addLiveBytes(endpoints map[lb.EndpointID]metrics.EndpointStats) {
	d.live.mu.Lock()
	defer d.live.mu.Unlock()
	if time.Since(d.live.at) >= liveBytesAge {
		d.live.callers = nil
		if d.cloudWatch != nil {
			d.live.callers, _ = d.datapath.CallerBytes() // before the live ones; the next to read it tells of the error
		}
		live, callers, err := d.datapath.LiveBytes(maxLiveBytes, d.namespaces)
		if err != nil {
			d.log.Warn("read bytes of live connections", "error", err)
		}
		for c, b := range callers {
			if d.live.callers != nil {
				d.live.callers[c] = d.live.callers[c].Plus(b)
			}
		}
		d.live.at, d.live.total = time.Now(), make(map[lb.EndpointID]datapath.Bytes, len(live))
		for id, b := range live {
			e := endpoints[id]
			d.live.total[id] = datapath.Bytes{Sent: e.BytesSent + b.Sent, Received: e.BytesReceived + b.Received}
		}
	}
	for id, b := range d.live.total {
		if e, ok := endpoints[id]; ok {
			e.BytesSent, e.BytesReceived = max(e.BytesSent, b.Sent), max(e.BytesReceived, b.Received)
			endpoints[id] = e
		}
	}
}

func (d *daemon) dnsCounters() []metrics.Counter {
	s := d.dns.Stats()
	return []metrics.Counter{
		{Reason: "answered", Value: s.Answered}, {Reason: "nodata", Value: s.NoData},
		{Reason: "forwarded", Value: s.Forwarded}, {Reason: "formerr", Value: s.FormErr},
		{Reason: "badvers", Value: s.BadVersion}, {Reason: "dropped", Value: s.Dropped},
		{Reason: "upstream_error", Value: s.UpstreamError}, {Reason: "timeout", Value: s.Timeout},
	}
}

func (d *daemon) reconcileMetrics() metrics.Reconcile {
	s := d.loop.Status()
	out := metrics.Reconcile{
		Revision: s.Revision, Lag: s.Lag, Passes: d.passes.Histogram(), Errors: s.Errors, LastSuccess: s.LastSuccess,
	}
	if p := d.loop.Desired(); p != nil {
		out.Services, out.Tasks = len(p.Services), len(p.Tasks)
		for _, s := range p.Services {
			out.Endpoints += len(s.Endpoints)
		}
	}
	return out
}

func (d *daemon) catalogMetrics() metrics.Catalog {
	_, files := d.catalog.Snapshot()
	out := metrics.Catalog{Files: len(files), Reload: metrics.Reload{OK: true}}
	for _, f := range files {
		if f.Loaded.After(out.Reload.LastSuccess) {
			out.Reload.LastSuccess = f.Loaded
		}
		if f.Err != nil {
			out.Failing++
			out.Reload.OK = false
			out.Reload.Last = slices.MaxFunc([]time.Time{out.Reload.Last, f.Since}, time.Time.Compare)
		}
	}
	if out.Reload.LastSuccess.After(out.Reload.Last) {
		out.Reload.Last = out.Reload.LastSuccess
	}
	return out
}
