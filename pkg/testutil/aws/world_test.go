package aws

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Cloud behind a server, on a clock that stands, with the SDK's
// clients. Clients try nothing twice.
type world struct {
	*Cloud
	t      *testing.T
	clock  *Clock
	server *Server
	node   *Node
}

func newWorld(t *testing.T, change func(*Params)) *world {
	t.Helper()
	w := &world{t: t, clock: NewClock(time.Now().Truncate(time.Second))}
	p := Params{Seed: 1, Now: w.clock.Now, MaxDelay: -1, Stale: -1}
	if change != nil {
		change(&p)
	}
	w.Cloud = New(p)
	w.node = NewNode(NodeParams{
		Name: "a", InstanceID: "i-0123456789abcdef0", Zone: "us-east-1a", ZoneID: "use1-az1", IPv4: "10.0.0.1",
		Role: "ecsInstanceRole", Who: Caller{Label: "role"}, Expires: w.clock.Now().Add(6 * time.Hour),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.server = Start(l, w.Cloud, w.node)
	t.Cleanup(w.server.Close)
	return w
}

// config is the SDK's configuration for a caller, from the environment alone.
func (w *world) config(who Caller) aws.Config {
	w.t.Helper()
	for _, v := range w.server.Env(who) {
		name, value, _ := strings.Cut(v, "=")
		w.t.Setenv(name, value)
	}
	cfg, err := config.LoadDefaultConfig(w.t.Context(), config.WithRetryMaxAttempts(1))
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

func (w *world) cloudMap(who Caller) *sd.Client {
	return sd.NewFromConfig(w.config(who), func(o *sd.Options) {
		if o.BaseEndpoint == nil {
			w.t.Error("the endpoint of the environment does not show in the options")
		}
		o.APIOptions = append(o.APIOptions, noHostPrefix)
	})
}

func (w *world) ecs(who Caller) *ecs.Client { return ecs.NewFromConfig(w.config(who)) }
func (w *world) cloudWatch(who Caller) *cloudwatch.Client {
	return cloudwatch.NewFromConfig(w.config(who))
}

// noHostPrefix leaves the host of the endpoint alone.
func noHostPrefix(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("noHostPrefix", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
	}), middleware.Before)
}

// wantCode fails unless an error is a refusal with this code.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != code {
		t.Errorf("got error %v, want %s", err, code)
	}
}

// must is the result of a call that is not refused.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
