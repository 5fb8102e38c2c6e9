package daemon

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/metrics"
	"connectd/pkg/proxy/route"
)

// httpSource is what the forwarder counts.
func (d *daemon) httpSource(bounds []float64) metrics.HTTPSource {
	statuses := make([]string, 0, 18)
	for n := range 17 {
		statuses = append(statuses, strconv.Itoa(n))
	}
	return metrics.HTTPSource{
		RetryOutcomes: route.RetryOutcomes(), GRPCStatuses: append(statuses, "other"), Bounds: bounds, Read: d.readHTTP,
	}
}

func (d *daemon) readHTTP() metrics.HTTP {
	out := metrics.HTTP{
		Forwarded: metrics.Requests{
			Services: make(map[lb.ServiceID]metrics.HTTPStats), Endpoints: make(map[lb.EndpointID]metrics.HTTPStats),
		},
		Direct: d.directRequests(), LogLines: d.access.Lines(), LogDrops: d.access.Dropped(),
	}
	d.proxy.Each(func(s *route.Service) {
		h := httpStats(&s.Counters)
		h.Retries, h.Timeouts = counts(s.Retries[:]), s.Timeouts.Load()
		if used(&h) {
			out.Forwarded.Services[s.ID] = h
		}
	}, func(e *route.Endpoint) {
		if h := httpStats(&e.Counters); used(&h) {
			out.Forwarded.Endpoints[e.ID] = h
		}
	})
	s := d.proxy.Stats()
	out.Clients = uint64(s.Clients)
	out.Upstream = map[string]uint64{"busy": uint64(s.Busy), "idle": uint64(s.Idle)}
	for _, reason := range slices.Sorted(maps.Keys(s.Refusals)) {
		out.Refusals = append(out.Refusals, metrics.Counter{Reason: reason, Value: s.Refusals[reason]})
	}
	return out
}

// readProxied is what the forwarder counts by ECS service.
func (d *daemon) readProxied() map[lb.ServiceID]proxied {
	out := make(map[lb.ServiceID]proxied)
	d.proxy.Each(func(s *route.Service) {
		of := func() proxied {
			if _, ok := out[s.ID]; !ok {
				out[s.ID] = proxied{make(map[lb.Owner]metrics.HTTPStats), make(map[lb.Owner]uint64)}
			}
			return out[s.ID]
		}
		s.Accounts(func(c *route.Caller) { of().callers[c.Owner] = httpStats(&c.Counters) },
			func(s *route.Server) { of().servers[s.Owner] = s.Requests.Load() })
	}, func(*route.Endpoint) {})
	return out
}

// directRequests are what the kernel has read in mode direct.
func (d *daemon) directRequests() (out metrics.Requests) {
	services, endpoints, err := d.datapath.HTTP()
	if err != nil {
		d.log.Error("read HTTP counters of mode direct", "error", err)
		return out
	}
	out.Services = make(map[lb.ServiceID]metrics.HTTPStats, len(services))
	for id, c := range services {
		out.Services[id] = directStats(&c)
	}
	out.Endpoints = make(map[lb.EndpointID]metrics.HTTPStats, len(endpoints))
	for id, c := range endpoints {
		out.Endpoints[id] = directStats(&c)
	}
	return out
}

func directStats(c *datapath.HTTPCounters) metrics.HTTPStats {
	// A status that could not be read is no request without a response.
	classes := append(slices.Clone(c.Classes[:]), c.Classes[0])
	classes[0] = 0
	return metrics.HTTPStats{
		Classes:  classes,
		Duration: metrics.Histogram{Counts: c.Time.Buckets, SumMicroseconds: uint64(c.Time.Sum.Microseconds())},
		LeftOut:  c.LeftOut,
	}
}

func httpStats(c *route.Counters) metrics.HTTPStats {
	return metrics.HTTPStats{
		Classes: counts(c.Classes[:]), GRPC: counts(c.GRPC[:]),
		Duration: metrics.Histogram{Counts: counts(c.Duration[:]), SumMicroseconds: c.Sum.Load()},
		Received: c.Received.Load(), Sent: c.Sent.Load(),
	}
}

func counts(from []atomic.Uint64) []uint64 {
	out := make([]uint64, len(from))
	for i := range from {
		out[i] = from[i].Load()
	}
	return out
}

func used(h *metrics.HTTPStats) bool {
	return slices.ContainsFunc(h.Classes, func(n uint64) bool { return n > 0 })
}
