package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/metrics"
	"connectd/pkg/metrics/cloudwatch"
	"connectd/pkg/plan"
)

// reading is what CloudWatch's metrics are made of. Any part but the plan may
// be empty.
type reading struct {
	plan     *plan.Desired
	proxied  map[lb.ServiceID]proxied
	direct   metrics.Requests           // for who served them
	called   map[ownedCall]*callerTotal // by the kernel's counts
	accepted map[datapath.Port]datapath.Accepted
	// port is where in its network namespace a task serves an endpoint; ok is
	// false where that is not known.
	port func(plan.Served) (port datapath.Port, ok bool)
}

// proxied is what the forwarder has counted of a service by ECS service.
type proxied struct {
	callers map[lb.Owner]metrics.HTTPStats // tries; the bytes are those of requests
	servers map[lb.Owner]uint64            // requests
}

// servedPorts lists the ports at which accepted connections are to be counted.
func servedPorts(p *plan.Desired, port func(plan.Served) (datapath.Port, bool)) []datapath.Port {
	var out []datapath.Port
	for _, s := range p.Local {
		if at, ok := port(s); ok && s.Service.Protocol == lb.TCP {
			out = append(out, at)
		}
	}
	return out
}

// snapshot is a reading in CloudWatch's terms. Rows are those of things that
// count, each with a key that no other thing will have.
func (r *reading) snapshot() cloudwatch.Snapshot {
	var out cloudwatch.Snapshot
	if r.plan == nil {
		return out
	}
	r.addAccepted(&out)
	type target struct {
		service *plan.Service
		count   uint64
	}
	targetsBy := make(map[lb.ServiceID]target, len(r.plan.Services))
	for _, s := range r.plan.Services {
		targets := targetsOf(s)
		r.addProxied(&out, s, targets)
		r.addDirect(&out, s)
		targetsBy[s.ID] = target{s, targets}
	}
	for _, k := range slices.SortedFunc(maps.Keys(r.called), compareCalls) {
		if t, ok := targetsBy[k.service]; ok {
			total := r.called[k]
			row := callsRow(t.service, fmt.Sprintf("connections of %d by %s", k.service, k.owner), &total.http, t.count)
			row.Owner, row.Bytes = k.owner, total.bytes
			out.Called = append(out.Called, row)
		}
	}
	return out
}

func (r *reading) addAccepted(out *cloudwatch.Snapshot) {
	owners := make(map[string]lb.Owner, len(r.plan.Tasks))
	for _, t := range r.plan.Tasks {
		owners[t.Name] = t.Owner
	}
	for _, s := range r.plan.Local {
		at, ok := r.port(s)
		if !ok {
			continue
		}
		a := r.accepted[at]
		out.Served = append(out.Served, cloudwatch.Served{
			Key:           fmt.Sprintf("port %d:%d", at.Netns, at.Number),
			DiscoveryName: s.Service.Name.DiscoveryName, Owner: owners[s.Endpoint.Task],
			Active: a.Active, Connections: a.Accepted, Bytes: a.Sent + a.Received,
		})
	}
}

// addProxied adds the requests that the forwarder carried, for who served them
// and for who made them. The servers' nodes cannot count them, for they see
// connections only.
func (r *reading) addProxied(out *cloudwatch.Snapshot, s *plan.Service, targets uint64) {
	p := r.proxied[s.ID]
	for _, owner := range sorted(p.servers) {
		out.Served = append(out.Served, requestsRow(s, fmt.Sprintf("requests of %d by %s", s.ID, owner), owner, p.servers[owner]))
	}
	for _, owner := range sorted(p.callers) {
		h := p.callers[owner]
		row := callsRow(s, fmt.Sprintf("tries of %d by %s", s.ID, owner), &h, targets)
		row.Owner, row.Bytes = owner, h.Received+h.Sent
		out.Called = append(out.Called, row)
	}
}

// sorted makes a reading the same whatever the order of a map.
func sorted[V any](m map[lb.Owner]V) []lb.Owner {
	return slices.SortedFunc(maps.Keys(m), func(a, b lb.Owner) int { return cmp.Compare(a.String(), b.String()) })
}

func compareCalls(a, b ownedCall) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.owner.String(), b.owner.String()))
}

func requestsRow(s *plan.Service, key string, server lb.Owner, n uint64) cloudwatch.Served {
	row := cloudwatch.Served{Key: key, DiscoveryName: s.Name.DiscoveryName, Owner: server, Requests: n}
	if s.HTTP != nil && s.HTTP.Protocol == lb.AppGRPC {
		row.GRPCRequests = n
	}
	return row
}

func callsRow(s *plan.Service, key string, h *metrics.HTTPStats, targets uint64) cloudwatch.Called {
	row := cloudwatch.Called{
		Key: key, DiscoveryName: s.Name.DiscoveryName, Targets: targets, Requests: sum(h.Classes), Time: cloudwatch.Histogram(h.Duration),
	}
	if len(h.Classes) >= 2+len(row.Codes) {
		copy(row.Codes[:], h.Classes[2:]) // by metrics.HTTPClasses
	}
	return row
}

// addDirect adds the requests of mode direct, for who served them.
func (r *reading) addDirect(out *cloudwatch.Snapshot, s *plan.Service) {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if h, ok := r.direct.Endpoints[e.ID]; ok {
			out.Served = append(out.Served, requestsRow(s, fmt.Sprintf("requests %d at %s", e.ID, e.Address), e.Owner, sum(h.Classes)))
		}
	}
}

// targetsOf counts the endpoints that new requests may go to.
func targetsOf(s *plan.Service) (n uint64) {
	for i := range s.Endpoints {
		switch s.Endpoints[i].State {
		case lb.StateActive:
			n++
		case lb.StateUnhealthy, lb.StateEjected, lb.StatePending:
			if s.Panic {
				n++
			}
		}
	}
	return n
}

func sum(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// cloudWatchStats is what the exporter shows of the publisher.
func cloudWatchStats(s cloudwatch.Stats) metrics.CloudWatch {
	return metrics.CloudWatch{
		Calls: s.Calls, Errors: s.Errors, Sent: s.Sent, Queued: s.Queued, LastSuccess: s.LastSuccess,
		Dropped: []metrics.Counter{
			{Reason: "full", Value: s.Full}, {Reason: "old", Value: s.Old},
			{Reason: "refused", Value: s.Refused}, {Reason: "invalid", Value: s.Invalid},
		},
	}
}
