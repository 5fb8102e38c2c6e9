package ecsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	fake "connectd/pkg/testutil/aws"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Cache that runs against AWS in process, on the bubble's clock.
type world struct {
	*Cache
	t     *testing.T
	cloud *fake.Cloud

	mu      sync.Mutex
	changes int
	results map[string]int // action and result -> calls
}

// run tests in a bubble of synctest.
func run(t *testing.T, rate float64, test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, cloud: fake.New(fake.Params{Seed: 1}), results: make(map[string]int)}
		w.Cache = New(Params{
			Log: slog.New(slog.DiscardHandler), CallsPerSecond: rate,
			Changed: func() { w.mu.Lock(); w.changes++; w.mu.Unlock() },
			Observe: func(action, result string) { w.mu.Lock(); w.results[action+" "+result]++; w.mu.Unlock() },
		})
		w.connection.dial = func(context.Context) (*session, error) {
			client := w.cloud.As(fake.Caller{Label: "a"})
			return &session{ecs: client.ECS, namespaces: client.CloudMap}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		test(w)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// after lets d pass, and all that it brings.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) calls(action string) int {
	return w.cloud.CallsOf(fake.Call{Action: action}).Calls
}

func (w *world) takeChanges() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.changes
	w.changes = 0
	return n
}

func (w *world) putTask(cluster string, i int, group string) (arn string) {
	arn = w.cloud.ARN(fake.ServiceECS, "", fmt.Sprintf("task/%s/%032x", cluster, i))
	w.cloud.PutTask(types.Task{TaskArn: &arn, ClusterArn: new(w.cloud.ARN(fake.ServiceECS, "", "cluster/"+cluster)), Group: &group})
	return arn
}

func (w *world) putDefinition(family string, port int32) {
	w.cloud.PutTaskDefinition(types.TaskDefinition{Family: &family, Revision: 1, ContainerDefinitions: []types.ContainerDefinition{{
		Name: new("app"), PortMappings: []types.PortMapping{{ContainerPort: &port}},
	}}})
}

// wantReason fails unless an error is an *Error for this reason.
func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != reason {
		t.Errorf("got error %v, want one for %s", err, reason)
	}
}
