package cloudmap

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"connectd/pkg/testutil/aws"
)

// dialed serves a cloud over HTTP, and returns the SDK's config of one who is
// led there by its environment.
func dialed(t *testing.T, cloud *aws.Cloud, who string) sdk.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := aws.Start(l, cloud, nil)
	t.Cleanup(server.Close)
	for _, each := range server.Env(aws.Caller{Label: who}) {
		key, value, _ := strings.Cut(each, "=")
		t.Setenv(key, value)
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestWire: the SDK's clients against an endpoint that the environment names.
// The data- prefix of the Discover calls must not get into its host.
func TestWire(t *testing.T) {
	cloud := aws.New(aws.Params{MaxDelay: -1, Stale: -1})
	cloud.AddNamespace(aws.Namespace{Name: "prod"})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cfg := dialed(t, cloud, "i-a")
	changed := make(chan struct{}, 100)
	s, err := New(Params{
		API: NewAPI(cfg), ECS: NewECS(cfg), Node: "i-a", Prefix: "cd--", Register: true, PollEvery: 50 * time.Millisecond,
		Namespaces: func() []Namespace { return []Namespace{{Name: "prod"}} },
		Changed: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- s.Run(run) }()
	o := offerOf("t1", 1)
	s.Offer([]Offer{o}, true)
	for !s.Registered("prod", "t1") {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("not registered: %+v %v", s.Stats(), s.Problems())
		}
	}
	for _, c := range s.Stats().Calls {
		if c.Outcome != "ok" && c.Outcome != "not_found" {
			t.Errorf("%+v", c)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWireDeadNodeIsCleaned: what a node that is gone had registered is taken
// away by calls that go over the wire, from the first registration to the last
// look. Only the nodes' clock and AWS's is not the machine's: the first look is
// due after 10 minutes.
func TestWireDeadNodeIsCleaned(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	w.cloud.PutCluster(ecstypes.Cluster{ClusterName: new("main")})
	var nodes []*node
	for _, name := range []string{"i-a", "i-b"} {
		cfg := dialed(t, w.cloud, name)
		w.cloud.PutContainerInstance(ecstypes.ContainerInstance{ContainerInstanceArn: new(w.instanceARN(name))})
		nodes = append(nodes, w.node(name, func(p *Params) {
			p.API, p.ECS, p.PollEvery = NewAPI(cfg), NewECS(cfg), 30*time.Second
			p.Instance = func() string { return w.instanceARN(name) }
		}))
	}
	a, b := nodes[0], nodes[1]
	for _, n := range nodes {
		o := n.offer(n.name+"-1", "orders")
		w.task(o)
		n.Offer([]Offer{o}, true)
	}
	w.run(time.Minute)
	a.Demand("orders", []string{"prod"})
	w.within(time.Minute, "a sees b's instance", func() bool { s := a.service("orders"); return s != nil && len(s.Endpoints) == 1 })
	b.down = true
	w.cloud.RemoveContainerInstance(w.instanceARN("i-b"))
	took := w.within(3*time.Hour, "cleaned", func() bool {
		a.Demand("orders", []string{"prod"}) // callers go on
		return len(w.registered("cd--orders")) == 1 && len(w.registered("cd--index")) == 1
	})
	t.Logf("cleaned after %s", took)
	if took < missingTwice {
		t.Errorf("cleaned after %s: ECS's answers are eventually consistent", took)
	}
	w.within(time.Minute, "a has no endpoint of b's", func() bool { return len(a.service("orders").Endpoints) == 0 })
	for _, c := range a.Stats().Calls {
		if c.Outcome != "ok" && c.Outcome != "not_found" {
			t.Errorf("%+v", c)
		}
	}
}
