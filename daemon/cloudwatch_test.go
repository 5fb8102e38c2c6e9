package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/metrics"
	"connectd/pkg/metrics/cloudwatch"
	"connectd/pkg/plan"
)

// cloudWatchWorld is a gRPC service with two endpoints, of which a local task
// serves one.
func cloudWatchWorld() *reading {
	ecs := &lb.ECSTask{Service: "orders-v2", Cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/shop"}
	old, web := lb.NewOwner("orders-v1", "shop"), lb.NewOwner("web", "shop")
	s := &plan.Service{
		Service: &lb.Service{
			Name: lb.ServiceName{Namespace: "prod", DiscoveryName: "orders"}, Protocol: lb.TCP, HTTP: &lb.HTTP{Protocol: lb.AppGRPC},
		},
		ID: 3,
		Endpoints: []plan.Endpoint{
			{ID: 31, Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort("10.0.0.1:80"), Task: "t1", Owner: ecs.Owner()}},
			{ID: 32, Endpoint: lb.Endpoint{Address: netip.MustParseAddrPort("10.0.0.2:80"), Owner: old}, State: lb.StateEjected},
		},
	}
	stats := metrics.HTTPStats{
		Classes: []uint64{1, 0, 10, 3, 4, 5, 0}, Duration: metrics.Histogram{Counts: []uint64{23}, SumMicroseconds: 99}, Received: 7, Sent: 70,
	}
	return &reading{
		plan: &plan.Desired{
			Services: []*plan.Service{s}, Tasks: []*plan.Task{{Task: lb.Task{Name: "t1", NetnsCookie: 5, ECS: ecs}, Owner: ecs.Owner()}},
			Local: []plan.Served{{Service: s, Endpoint: &s.Endpoints[0]}},
		},
		called: map[ownedCall]*callerTotal{
			{3, web}:        {bytes: 120, http: metrics.HTTPStats{Classes: []uint64{0, 0, 4, 0, 0, 0, 1}, Duration: metrics.Histogram{Counts: []uint64{5}, SumMicroseconds: 50}}},
			{3, lb.Owner{}}: {bytes: 8},
			{4, web}:        {bytes: 9}, // of a service that has gone
		},
		proxied: map[lb.ServiceID]proxied{3: {
			callers: map[lb.Owner]metrics.HTTPStats{{}: {Received: 2, Sent: 3}, web: stats},
			servers: map[lb.Owner]uint64{{}: 1, ecs.Owner(): 20, old: 2},
		}},
		direct: metrics.Requests{Endpoints: map[lb.EndpointID]metrics.HTTPStats{32: {Classes: []uint64{0, 0, 4, 0, 0, 0, 1}}}},
		accepted: map[datapath.Port]datapath.Accepted{{Netns: 5, Number: 8080}: {
			Active: 2, Accepted: 9, Bytes: datapath.Bytes{Sent: 1000, Received: 500},
		}},
		port: func(s plan.Served) (datapath.Port, bool) {
			return datapath.Port{Netns: 5, Number: 8080}, s.Endpoint.Task == "t1"
		},
	}
}

func TestCloudWatchSnapshot(t *testing.T) {
	r := cloudWatchWorld()
	got := r.snapshot()
	served := []cloudwatch.Served{
		{
			Key: "port 5:8080", DiscoveryName: "orders", Owner: lb.NewOwner("orders-v2", "shop"),
			Active: 2, Connections: 9, Bytes: 1500,
		},
		{Key: "requests of 3 by ", DiscoveryName: "orders", Requests: 1, GRPCRequests: 1},
		{Key: "requests of 3 by shop/orders-v1", DiscoveryName: "orders", Owner: lb.NewOwner("orders-v1", "shop"), Requests: 2, GRPCRequests: 2},
		{Key: "requests of 3 by shop/orders-v2", DiscoveryName: "orders", Owner: lb.NewOwner("orders-v2", "shop"), Requests: 20, GRPCRequests: 20},
		{Key: "requests 32 at 10.0.0.2:80", DiscoveryName: "orders", Owner: lb.NewOwner("orders-v1", "shop"), Requests: 5, GRPCRequests: 5},
	}
	if !slices.Equal(got.Served, served) {
		t.Errorf("served %+v\nwant %+v", got.Served, served)
	}
	called := []cloudwatch.Called{
		{Key: "tries of 3 by ", DiscoveryName: "orders", Targets: 1, Bytes: 5},
		{
			Key: "tries of 3 by shop/web", DiscoveryName: "orders", Owner: lb.NewOwner("web", "shop"),
			Targets: 1, Requests: 23, Codes: [4]uint64{10, 3, 4, 5}, Bytes: 77,
			Time: cloudwatch.Histogram{Counts: []uint64{23}, SumMicroseconds: 99},
		},
		{Key: "connections of 3 by ", DiscoveryName: "orders", Targets: 1, Bytes: 8},
		{
			Key: "connections of 3 by shop/web", DiscoveryName: "orders", Owner: lb.NewOwner("web", "shop"),
			Targets: 1, Requests: 5, Codes: [4]uint64{0: 4}, Bytes: 120, Time: cloudwatch.Histogram{Counts: []uint64{5}, SumMicroseconds: 50},
		},
	}
	if fmt.Sprint(got.Called) != fmt.Sprint(called) {
		t.Errorf("called %+v\nwant %+v", got.Called, called)
	}
	r.plan.Services[0].Panic = true
	if n := targetsOf(r.plan.Services[0]); n != 2 {
		t.Errorf("%d targets in panic, want both", n)
	}
	if got := (&reading{}).snapshot(); got.Served != nil || got.Called != nil {
		t.Errorf("without a plan %+v", got)
	}
}

func TestServedPorts(t *testing.T) {
	r := cloudWatchWorld()
	if got := servedPorts(r.plan, r.port); !slices.Equal(got, []datapath.Port{{Netns: 5, Number: 8080}}) {
		t.Errorf("ports %v", got)
	}
	r.plan.Services[0].Protocol = lb.UDP
	if got := servedPorts(r.plan, r.port); got != nil {
		t.Errorf("ports of a UDP service %v", got)
	}
	r.plan.Services[0].Protocol = lb.TCP
	if got := servedPorts(r.plan, func(plan.Served) (datapath.Port, bool) { return datapath.Port{}, false }); got != nil {
		t.Errorf("ports that nobody knows %v", got)
	}
}
