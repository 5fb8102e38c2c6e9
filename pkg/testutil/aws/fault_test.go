package aws

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

func list(ctx context.Context, api interface {
	ListNamespaces(context.Context, *sd.ListNamespacesInput, ...func(*sd.Options)) (*sd.ListNamespacesOutput, error)
}) error {
	_, err := api.ListNamespaces(ctx, &sd.ListNamespacesInput{})
	return err
}

// TestFaults: each kind of fault, as the SDK sees it and in process.
func TestFaults(t *testing.T) {
	both(t, nil, func(t *testing.T, w *world, api cloudMapAPI) {
		one := func(f Fault) error {
			f.Call, f.Count = Call{Service: ServiceCloudMap, Action: "ListNamespaces", Caller: "test"}, 1
			w.Inject(f)
			return list(t.Context(), api)
		}
		wantCode(t, one(Fault{Code: CodeExpired}), CodeExpired)
		wantCode(t, one(Fault{Code: CodeUnrecognized}), CodeUnrecognized)
		wantCode(t, one(Fault{Kind: Throttle}), "ThrottlingException")
		wantCode(t, one(Fault{}), "InternalServiceError")
		denied := one(Fault{Code: CodeAccessDenied})
		wantCode(t, denied, CodeAccessDenied)
		if !strings.Contains(denied.Error(), "servicediscovery:ListNamespaces") {
			t.Errorf("the refusal %q does not name the action", denied)
		}
		if err := one(Fault{Kind: Reset}); !errors.Is(err, syscall.ECONNRESET) && !strings.Contains(err.Error(), "EOF") {
			t.Errorf("a reset shows as %v", err)
		}
		for _, kind := range []FaultKind{Garbage, Broken} {
			if err := one(Fault{Kind: kind}); err == nil {
				t.Errorf("fault %d does not show", kind)
			}
		}
		if err := list(t.Context(), api); err != nil {
			t.Errorf("after all faults: %v", err)
		}
		got := w.CallsOf(Call{Service: ServiceCloudMap, Action: "ListNamespaces"})
		if got != (Count{Calls: 9, Errors: 8}) {
			t.Errorf("counted %+v", got)
		}

		w.Inject(Fault{Kind: Hang, Count: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := list(ctx, api); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that hangs ends with %v", err)
		}
		end := w.Outage()
		if err := list(t.Context(), api); err == nil {
			t.Error("a call succeeds during an outage")
		}
		end()
		if err := list(t.Context(), api); err != nil {
			t.Errorf("after an outage: %v", err)
		}
	})
}

// TestCloseEndsHanging: Close does not wait for calls that hang.
func TestCloseEndsHanging(t *testing.T) {
	w := newWorld(t, nil)
	api := w.cloudMap(Caller{})
	w.Inject(Fault{Kind: Hang})
	sent, ended := make(chan struct{}), make(chan error, 1)
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { close(sent) },
	})
	go func() { ended <- list(ctx, api) }()
	<-sent
	w.server.Close()
	if err := <-ended; err == nil {
		t.Error("a call that hung succeeds")
	}
}

// TestQuotas: a bucket is of an account, and fills again.
func TestQuotas(t *testing.T) {
	w := newWorld(t, nil)
	w.PutCluster(types.Cluster{ClusterArn: new(w.ARN(ServiceECS, other, "cluster/c"))})
	w.PutCluster(types.Cluster{ClusterName: new("c")})
	call := func(who Caller) error {
		_, err := w.As(who).ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: new("c"), Tasks: []string{"x"}})
		return err
	}
	for i := range 100 {
		if err := call(Caller{Label: string(rune('a' + i%2))}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	wantCode(t, call(Caller{Label: "c"}), "ThrottlingException")
	if err := call(Caller{Account: other}); err != nil {
		t.Errorf("another account: %v", err)
	}
	w.clock.Advance(time.Second)
	for range 20 {
		if err := call(Caller{}); err != nil {
			t.Errorf("after a second: %v", err)
		}
	}
	wantCode(t, call(Caller{}), "ThrottlingException")

	ns, _ := w.AddNamespace(Namespace{Name: "prod"})
	w.AddService(ns, "s", false)
	discover := func() error {
		_, err := w.As(Caller{}).CloudMap.DiscoverInstances(t.Context(), &sd.DiscoverInstancesInput{NamespaceName: new("prod"), ServiceName: new("s")})
		return err
	}
	for range 2000 {
		if err := discover(); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, discover(), "RequestLimitExceeded")
	if got := w.CallsOf(Call{Service: ServiceECS, Caller: "a"}); got != (Count{Calls: 50}) {
		t.Errorf("caller a made %+v", got)
	}
	if n := len(w.Requests()); n != 100+1+1+20+1+2001 {
		t.Errorf("%d requests are kept", n)
	}
	w.ResetCalls()
	if len(w.Calls()) != 0 || len(w.Requests()) != 0 {
		t.Error("ResetCalls leaves some")
	}
}

// TestProtocol: requests that no client of ours makes.
func TestProtocol(t *testing.T) {
	w := newWorld(t, nil)
	for name, test := range map[string]struct {
		target, signed, body string
		status               int
		want                 string
	}{
		"unsigned":       {"AmazonEC2ContainerServiceV20141113.ListTasks", "", "{}", 400, "MissingAuthenticationToken"},
		"unknown action": {"AmazonEC2ContainerServiceV20141113.Fly", "x", "{}", 400, "UnknownOperation"},
		"unknown target": {"Nobody.ListTasks", "x", "{}", 400, "UnknownOperation"},
		"no JSON":        {"AmazonEC2ContainerServiceV20141113.ListTasks", "x", "{", 400, "Serialization"},
		"wrong types":    {"AmazonEC2ContainerServiceV20141113.DescribeTasks", "x", `{"tasks": "a"}`, 400, "Serialization"},
		"missing field":  {"Route53AutoNaming_v20170314.GetNamespace", "x", "{}", 400, "InvalidInput"},
		"too long":       {"Route53AutoNaming_v20170314.GetNamespace", "x", strings.Repeat(" ", 1<<20) + "{}", 413, "1 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Amz-Target", test.target)
			r.Header.Set("Content-Type", "application/x-amz-json-1.1")
			if test.signed != "" {
				r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+test.signed+"/20260101/us-east-1/ecs/aws4_request")
			}
			status, body := do(t, r)
			if status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
}
