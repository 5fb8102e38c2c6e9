package daemon

import (
	"fmt"

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
	kernel   map[lb.EndpointID]metrics.EndpointStats
	http     metrics.HTTP
	accepted map[datapath.Port]datapath.Accepted
	// port is where in its network namespace a task serves an endpoint; ok is
	// false where that is not known.
	port func(plan.Served) (port datapath.Port, ok bool)
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
	for _, s := range r.plan.Services {
		r.addRequests(&out, s)
		targets := targetsOf(s)
		for i := range s.Endpoints {
			r.addTarget(&out, s, &s.Endpoints[i], targets)
		}
	}
	return out
}

func (r *reading) addAccepted(out *cloudwatch.Snapshot) {
	owners := make(map[string]cloudwatch.Owner, len(r.plan.Tasks))
	for _, t := range r.plan.Tasks {
		if t.ECS != nil {
			owners[t.Name] = cloudwatch.Owner{Service: t.ECS.Service, Cluster: t.ECS.Cluster}
		}
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

// addRequests adds the requests that callers here have made. Their servers'
// nodes cannot count them, for they see connections only.
func (r *reading) addRequests(out *cloudwatch.Snapshot, s *plan.Service) {
	for part, requests := range [...]*metrics.Requests{&r.http.Forwarded, &r.http.Direct} {
		h, ok := requests.Services[s.ID]
		if !ok {
			continue
		}
		row := cloudwatch.Served{
			Key: fmt.Sprintf("requests %d of %d", part, s.ID), DiscoveryName: s.Name.DiscoveryName, Requests: sum(h.Classes),
		}
		if s.HTTP != nil && s.HTTP.Protocol == lb.AppGRPC {
			row.GRPCRequests = row.Requests
		}
		out.Served = append(out.Served, row)
		if bytes := h.Received + h.Sent; bytes > 0 {
			out.Called = append(out.Called, cloudwatch.Called{Key: row.Key, DiscoveryName: row.DiscoveryName, Bytes: bytes})
		}
	}
}

// addTarget adds what callers here have had from one endpoint.
func (r *reading) addTarget(out *cloudwatch.Snapshot, s *plan.Service, e *plan.Endpoint, targets uint64) {
	key := fmt.Sprintf("%d at %s", e.ID, e.Address)
	if k, ok := r.kernel[e.ID]; ok {
		out.Called = append(out.Called, cloudwatch.Called{
			Key: "connections " + key, DiscoveryName: s.Name.DiscoveryName, Bytes: k.BytesSent + k.BytesReceived,
		})
	}
	for part, requests := range [...]*metrics.Requests{&r.http.Forwarded, &r.http.Direct} {
		h, ok := requests.Endpoints[e.ID]
		if !ok {
			continue
		}
		row := cloudwatch.Called{
			Key: fmt.Sprintf("requests %d of %s", part, key), DiscoveryName: s.Name.DiscoveryName,
			Targets: targets, Requests: sum(h.Classes), Time: cloudwatch.Histogram(h.Duration),
		}
		if len(h.Classes) >= 2+len(row.Codes) {
			copy(row.Codes[:], h.Classes[2:]) // by metrics.HTTPClasses
		}
		out.Called = append(out.Called, row)
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
