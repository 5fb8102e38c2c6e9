package cloudmap

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"connectd/pkg/testutil/aws"
)

// TestWire: the SDK's clients against an endpoint that the environment names.
// The data- prefix of the Discover calls must not get into its host.
func TestWire(t *testing.T) {
	cloud := aws.New(aws.Params{MaxDelay: -1, Stale: -1})
	cloud.AddNamespace(aws.Namespace{Name: "prod"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := aws.Start(l, cloud, nil)
	defer server.Close()
	for _, each := range server.Env(aws.Caller{Label: "i-a"}) {
		key, value, _ := strings.Cut(each, "=")
		t.Setenv(key, value)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
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
