package cloudwatch

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
	"connectd/pkg/testutil/aws"
)

// A whole Publisher and a CloudWatch that refuses what the service does: all
// arrives, once, over an outage and with credentials that have expired.
func TestFakeAWS(t *testing.T) {
	cloud := aws.New(aws.Params{Seed: 1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := aws.NewNode(aws.NodeParams{Name: "a", InstanceID: "i-1", Zone: "us-east-1a", ZoneID: "use1-az1"})
	srv := aws.Start(l, cloud, node)
	t.Cleanup(srv.Close)
	for _, v := range srv.Env(aws.Caller{Label: "a"}) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("AWS_REGION", "") // it is the instance's
	t.Setenv("AWS_DEFAULT_REGION", "")

	const services = 130 // 28 data each: several calls
	read := func() Snapshot {
		var s Snapshot
		for i := range services {
			e := everything(uint64(time.Now().UnixNano()))
			e.Served[0].DiscoveryName, e.Called[0].DiscoveryName = fmt.Sprint("s", i), fmt.Sprint("s", i)
			s.Served, s.Called = append(s.Served, e.Served...), append(s.Called, e.Called...)
		}
		return s
	}
	expired := aws.Fault{Call: aws.Call{Service: aws.ServiceCloudWatch}, Kind: aws.Refuse, Code: aws.CodeExpired}
	end := cloud.Inject(expired)
	p := New(Params{API: Dial(""), Namespace: "ECS/Connect", Period: 30 * time.Second, Bounds: bounds, Read: read})
	p.random = func(n time.Duration) time.Duration { return min(n, 10*time.Millisecond) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	testutil.Eventually(t, 20*time.Second, func() error {
		if s := p.Stats(); !strings.Contains(s.LastError, aws.CodeExpired) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	end()
	testutil.Eventually(t, 20*time.Second, func() error {
		if s := p.Stats(); s.Sent != 28*services {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	seen := make(map[string]int)
	for _, m := range cloud.Metrics() {
		for _, d := range m.Data {
			key := *d.MetricName + d.Timestamp.String()
			for _, dim := range d.Dimensions {
				key += *dim.Name + *dim.Value
			}
			seen[key]++
		}
	}
	for key, n := range seen {
		if n != 1 {
			t.Errorf("%s arrived %d times", key, n)
		}
	}
	s := p.Stats()
	// The end sends what it can within lastTime, one call at least.
	if want := 2 * 28 * services; len(seen) < int(s.Sent) || s.Sent <= 28*services || int(s.Sent)+s.Queued != want || s.Full+s.Old+s.Refused+s.Invalid != 0 {
		t.Errorf("%d data arrived, %+v, want %d", len(seen), s, want)
	}
}
