package metrics

import (
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"connectd/pkg/lb"
)

// emit adds the series of services and endpoints.
func (s *state) emit(f *families, out *scrape) {
	s.gatherOther()
	for _, svc := range s.order {
		s.emitService(f, out, svc)
	}
	s.emitService(f, out, s.other)
	for _, e := range s.endpoints {
		if e.own {
			s.emitEndpoint(f, out, e)
		}
		if e.ownHTTP {
			if e.httpLabels == nil {
				e.httpLabels = endpointHTTPLabels(e.address.String(), e.service.name)
			}
			s.emitEndpointHTTP(f, out, e.httpLabels, e.http.snapshot(s.httpEndpointLen()))
			if e.ownGRPC {
				s.emitEndpointGRPC(f, out, e.httpLabels, e.grpc.snapshot(len(s.src.HTTP.GRPCStatuses)))
			}
		}
	}
	for b, n := range s.budget.folded {
		out.add(f.folded, float64(n), pairs("block", blockNames[b]))
	}
	out.add(f.series, float64(s.budget.taken), nil)
}

// gatherOther sums the present state of services without series of their own,
// and shows those blocks of other that say something.
func (s *state) gatherOther() {
	o := s.other
	clear(o.states)
	o.panicking = 0
	for _, svc := range s.order {
		svc.panicking = 0
		if svc.plan.Panic {
			svc.panicking = 1
		}
		if !svc.own[blockState] {
			for st, n := range svc.states {
				o.states[st] += n
			}
			o.panicking += svc.panicking
		}
	}
	o.own[blockState] = o.own[blockState] || s.budget.folded[blockState] > 0 || o.ejected.shown[0] > 0
	o.own[blockTraffic] = o.own[blockTraffic] || nonzero(o.traffic.shown) || nonzero(o.rest[:]) || o.restActive > 0
	o.own[blockHTTP] = o.own[blockHTTP] || nonzero(o.http[0].shown) || nonzero(o.restHTTP) || nonzero(o.restGRPC)
	o.own[blockProbe] = o.own[blockProbe] || nonzero(o.probes.shown)
}

func nonzero(counts []uint64) bool {
	return slices.ContainsFunc(counts, func(n uint64) bool { return n != 0 })
}

func (s *state) emitService(f *families, out *scrape, svc *service) {
	if svc.own[blockState] {
		s.emitState(f, out, svc)
	}
	if svc.own[blockTraffic] {
		s.emitTraffic(f, out, svc)
	}
	if svc.own[blockProbe] {
		s.emitProbes(f, out, svc)
	}
	if svc.own[blockHTTP] {
		s.emitHTTP(f, out, svc)
	}
}

func (s *state) emitState(f *families, out *scrape, svc *service) {
	l := &svc.labels
	if l.states == nil {
		for _, st := range lb.States() {
			l.states = append(l.states, svc.pairs("state", st.String()))
		}
	}
	for st, n := range svc.states {
		out.add(f.endpoints, float64(n), l.states[st])
	}
	if svc.panicking > 0 {
		out.add(f.panicking, float64(svc.panicking), svc.base())
	}
	if s.src.Ejections != nil {
		out.add(f.ejections, float64(first(svc.ejected.shown)), svc.base())
	}
}

func first(counts []uint64) uint64 {
	if len(counts) == 0 {
		return 0
	}
	return counts[0]
}

func (s *state) emitTraffic(f *families, out *scrape, svc *service) {
	l := &svc.labels
	if l.failures == nil {
		for _, reason := range s.src.Kernel.Reasons {
			l.failures = append(l.failures, svc.pairs("reason", reason))
		}
		l.rest = pairs("endpoint", "other", "namespace", svc.name.Namespace, "service", svc.name.DiscoveryName)
	}
	v := svc.traffic.snapshot(s.trafficLen())
	reasons, n := len(s.src.Kernel.Reasons), len(s.src.Kernel.Bounds)+1
	for i := range reasons {
		out.add(f.failures, float64(v[i]), l.failures[i])
	}
	v = v[reasons:]
	out.addHistogram(f.connectTime, s.src.Kernel.Bounds, v[:n], v[n], svc.base())
	v = v[n+1:]
	out.addHistogram(f.srtt, s.src.Kernel.Bounds, v[:n], v[n], svc.base())
	if nonzero(svc.rest[:]) || svc.restActive > 0 {
		emitCounters(f, out, svc.restActive, &svc.rest, l.rest)
	}
}

func (s *state) emitProbes(f *families, out *scrape, svc *service) {
	l := &svc.labels
	if l.probes == nil {
		for _, result := range s.src.Probes.Results {
			l.probes = append(l.probes, svc.pairs("result", result))
		}
	}
	v := svc.probes.snapshot(s.probesLen())
	results, n := len(s.src.Probes.Results), len(DurationBounds)+1
	for i := range results {
		out.add(f.probes, float64(v[i]), l.probes[i])
	}
	v = v[results:]
	out.addHistogram(f.probeTime, DurationBounds, v[:n], v[n], svc.base())
}

func (s *state) emitEndpoint(f *families, out *scrape, e *endpoint) {
	if e.labels == nil {
		name := e.service.name
		e.labels = pairs("endpoint", e.address.String(), "namespace", name.Namespace, "service", name.DiscoveryName)
	}
	emitCounters(f, out, e.active, &e.shown, e.labels)
}

func emitCounters(f *families, out *scrape, active uint64, c *[endpointCounters]uint64, l []*dto.LabelPair) {
	out.add(f.endpointActive, float64(active), l)
	out.add(f.endpointConnections, float64(c[opened]), l)
	out.add(f.endpointFailures, float64(c[failed]), l)
	out.add(f.endpointSent, float64(c[sent]), l)
	out.add(f.endpointReceived, float64(c[received]), l)
	out.add(f.endpointRetransmits, float64(c[retransmits]), l)
}

// base returns the labels namespace and service.
func (svc *service) base() []*dto.LabelPair {
	if svc.labels.base == nil {
		svc.labels.base = pairs("namespace", svc.name.Namespace, "service", svc.name.DiscoveryName)
	}
	return svc.labels.base
}

// pairs returns the labels of the service and one more, sorted by name.
func (svc *service) pairs(name, value string) []*dto.LabelPair {
	out := append(slices.Clone(svc.base()), pairs(name, value)...)
	slices.SortFunc(out, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}
