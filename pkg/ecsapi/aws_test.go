package ecsapi

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	fake "connectd/pkg/testutil/aws"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// network is AWS behind a real server, and a Cache that finds it through the
// environment alone.
type network struct {
	*Cache
	cloud  *fake.Cloud
	node   *fake.Node
	server *fake.Server
}

func newNetwork(t *testing.T, change map[string]string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{cloud: fake.New(fake.Params{}), node: fake.NewNode(fake.NodeParams{
		Name: "a", Role: "ecsInstanceRole", Who: fake.Caller{Label: "role"}, Expires: time.Now().Add(time.Hour), Region: fake.DefaultRegion,
	})}
	n.server = fake.Start(l, n.cloud, n.node)
	t.Cleanup(n.server.Close)
	for _, v := range n.server.Env(fake.Caller{Label: "env"}) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	for name, value := range change {
		t.Setenv(name, value)
	}
	n.Cache = New(Params{Log: slog.New(slog.DiscardHandler)})
	n.cloud.PutCluster(types.Cluster{ClusterName: new("prod")})
	return n
}

const instance = "arn:aws:ecs:us-east-1:111122223333:container-instance/prod/abc"

// TestNode: the attributes of the node's container instance.
func TestNode(t *testing.T) {
	n := newNetwork(t, nil)
	ctx := t.Context()
	_, err := n.Instance(ctx, "prod", instance)
	wantReason(t, err, ReasonMissing)
	wantReason(t, n.PutReady(ctx, "prod", instance, true), ReasonMissing)
	n.cloud.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: new(instance)})
	if err := n.PutReady(ctx, "prod", instance, true); err != nil || n.cloud.Attributes(instance)[AttributeReady] != "true" {
		t.Errorf("attributes are %v, %v", n.cloud.Attributes(instance), err)
	}
	if err := n.PutReady(ctx, "prod", instance, false); err != nil || len(n.cloud.Attributes(instance)) != 0 {
		t.Errorf("attributes are %v, %v", n.cloud.Attributes(instance), err)
	}
	for value, want := range map[string]bool{"true": true, "": true, "false": false} {
		n.cloud.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: new(instance), Attributes: []types.Attribute{{Name: new(AttributeOff), Value: &value}}})
		if is, err := n.Instance(ctx, "prod", instance); is.Off != want || err != nil {
			t.Errorf("with %q the node is off: %v, %v", value, is.Off, err)
		}
	}
	if got := n.cloud.CallsOf(fake.Call{Service: fake.ServiceECS, Caller: "env"}); got.Calls != 7 {
		t.Errorf("the keys of the environment made %d calls", got.Calls)
	}
}

// TestRole: without keys and region in the environment those of the instance
// are used.
func TestRole(t *testing.T) {
	n := newNetwork(t, map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""})
	n.cloud.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: new(instance)})
	if is, err := n.Instance(t.Context(), "prod", instance); is.Off || err != nil {
		t.Errorf("the node is off: %v, %v", is.Off, err)
	}
	if got := n.cloud.CallsOf(fake.Call{Service: fake.ServiceECS, Caller: "role"}); got.Calls != 1 {
		t.Errorf("the role made %d calls", got.Calls)
	}
}

// TestReasons: why a call fails, and what the message says.
func TestReasons(t *testing.T) {
	for name, test := range map[string]struct {
		fault  fake.Fault
		env    map[string]string
		reason string
		says   string
	}{
		"denied":   {fake.Fault{Code: fake.CodeAccessDenied}, nil, ReasonDenied, "must allow ecs:DescribeContainerInstances"},
		"expired":  {fake.Fault{Code: fake.CodeExpired}, nil, ReasonExpired, "credentials have expired"},
		"unknown":  {fake.Fault{Code: fake.CodeUnrecognized}, nil, ReasonCredentials, "find credentials"},
		"throttle": {fake.Fault{Kind: fake.Throttle}, nil, ReasonThrottled, "Rate exceeded"},
		"reset":    {fake.Fault{Kind: fake.Reset}, nil, ReasonUnreachable, "DescribeContainerInstances"},
		"server":   {fake.Fault{}, nil, ReasonOther, "InternalServiceError"},
		"garbage":  {fake.Fault{Kind: fake.Garbage}, nil, ReasonOther, "DescribeContainerInstances"},
		"broken":   {fake.Fault{Kind: fake.Broken}, nil, ReasonOther, "DescribeContainerInstances"},
		"no keys": {fake.Fault{}, map[string]string{
			"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true",
		}, ReasonCredentials, "find credentials"},
		"no region": {fake.Fault{}, map[string]string{
			"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_EC2_METADATA_DISABLED": "true",
		}, ReasonOther, "region"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, test.env)
			if test.fault.Service == "" {
				test.fault.Service = fake.ServiceECS
			}
			n.cloud.Inject(test.fault)
			_, err := n.Instance(t.Context(), "prod", instance)
			wantReason(t, err, test.reason)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("the message %q does not say %q", err, test.says)
			}
		})
	}
}

// TestAgent: what the agent says, and how it fails.
func TestAgent(t *testing.T) {
	n := newNetwork(t, nil)
	agent := &Agent{URL: n.server.URL + "/"}
	ask := func() (Metadata, error) { return agent.Metadata(t.Context()) }
	if _, err := ask(); err == nil {
		t.Error("an agent that names no cluster is believed")
	}
	n.node.SetAgent(fake.AgentMetadata{Cluster: "prod", Version: "Amazon ECS Agent - v1.105.1"})
	if got, err := ask(); got != (Metadata{Cluster: "prod", Version: "Amazon ECS Agent - v1.105.1"}) || err != nil {
		t.Errorf("before it has registered the agent says %+v, %v", got, err)
	}
	n.node.SetAgent(fake.AgentMetadata{Cluster: "prod", ContainerInstanceArn: new(instance), Version: "v"})
	if got, err := ask(); got != (Metadata{Cluster: "prod", ContainerInstanceARN: instance, Version: "v"}) || err != nil {
		t.Errorf("the agent says %+v, %v", got, err)
	}
	for _, kind := range []fake.FaultKind{fake.Broken, fake.Garbage, fake.Reset} {
		n.cloud.Inject(fake.Fault{Call: fake.Call{Service: fake.ServiceAgent}, Kind: kind, Count: 1})
		if _, err := ask(); err == nil {
			t.Errorf("fault %d does not show", kind)
		}
	}
	n.cloud.Inject(fake.Fault{Call: fake.Call{Service: fake.ServiceAgent}, Kind: fake.Hang, Count: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := agent.Metadata(ctx); err == nil {
		t.Error("an agent that hangs is waited for")
	}
}
