package ecsapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"
	fake "connectd/pkg/testutil/aws"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestPortMappings: every field arrives, and one call is enough for ever.
func TestPortMappings(t *testing.T) {
	run(t, 0, func(w *world) {
		w.cloud.PutTaskDefinition(types.TaskDefinition{Family: new("orders"), Revision: 7, ContainerDefinitions: []types.ContainerDefinition{
			{Name: new("app"), PortMappings: []types.PortMapping{
				{Name: new("http"), ContainerPort: new(int32(8080)), HostPort: new(int32(0)), Protocol: "tcp", AppProtocol: "http2"},
				{ContainerPort: new(int32(53)), HostPort: new(int32(5353)), Protocol: "udp"},
				{ContainerPortRange: new("9000-9010")},
			}},
			{Name: new("sidecar"), PortMappings: []types.PortMapping{{Name: new("admin"), ContainerPort: new(int32(9901))}}},
		}})
		if _, ok, err := w.PortMappings("orders:7"); ok || err != nil {
			t.Errorf("before any call: %v, %v", ok, err)
		}
		w.after(time.Millisecond)
		if n := w.takeChanges(); n != 1 {
			t.Errorf("%d changes", n)
		}
		want := []lb.PortMapping{
			{Container: "app", Name: "http", ContainerPort: 8080, Protocol: lb.TCP, AppProtocol: "http2"},
			{Container: "app", ContainerPort: 53, HostPort: 5353, Protocol: lb.UDP},
			{Container: "sidecar", Name: "admin", ContainerPort: 9901, Protocol: lb.TCP},
		}
		for range 3 {
			if ports, ok, err := w.PortMappings("orders:7"); !slices.Equal(ports, want) || !ok || err != nil {
				t.Errorf("ports are %+v, %v, %v", ports, ok, err)
			}
			w.after(10 * time.Hour)
		}
		if n := w.calls("DescribeTaskDefinition"); n != 1 || w.takeChanges() != 0 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestDefaultNamespace: it is looked up anew, and what was known outlives an
// outage.
func TestDefaultNamespace(t *testing.T) {
	run(t, 0, func(w *world) {
		want := func(ref string) {
			t.Helper()
			if got, ok, err := w.DefaultNamespace("prod"); got != ref || !ok || err != nil {
				t.Errorf("default namespace is %q, %v, %v, want %q", got, ok, err, ref)
			}
		}
		w.cloud.PutCluster(types.Cluster{ClusterName: new("prod")})
		w.DefaultNamespace("prod")
		w.after(time.Millisecond)
		want("")
		_, arn := w.cloud.AddNamespace(fake.Namespace{Name: "shop"})
		w.cloud.PutCluster(types.Cluster{ClusterName: new("prod"), ServiceConnectDefaults: &types.ClusterServiceConnectDefaults{Namespace: &arn}})
		w.takeChanges()
		w.after(10 * time.Minute)
		want(arn)
		if n := w.takeChanges(); n != 1 {
			t.Errorf("%d changes", n)
		}
		before := w.calls("DescribeClusters")
		w.after(time.Hour)
		if n := w.calls("DescribeClusters") - before; n < 6 || n > 12 || w.takeChanges() != 0 {
			t.Errorf("%d calls in an hour", n)
		}
		end := w.cloud.Outage()
		w.after(time.Hour)
		want(arn)
		if p := w.Problems(); len(p) != 1 || p[0].Action != "ecs:DescribeClusters" || time.Since(p[0].Since) < 50*time.Minute {
			t.Errorf("problems are %+v", p)
		}
		end()
		w.after(maxBackoff)
		want(arn)
		if p := w.Problems(); len(p) != 0 {
			t.Errorf("problems after the outage are %+v", p)
		}
	})
}

// TestNamespaceName: by id and ARN, of another account too.
func TestNamespaceName(t *testing.T) {
	run(t, 0, func(w *world) {
		id, arn := w.cloud.AddNamespace(fake.Namespace{Name: "shop", HTTPName: "shop-abc"})
		_, shared := w.cloud.AddNamespace(fake.Namespace{Name: "tools", Account: "444455556666", Shared: []string{fake.DefaultAccount}})
		for ref, want := range map[string]string{id: "shop", arn: "shop", shared: "tools"} {
			w.NamespaceName(ref)
			w.after(time.Millisecond)
			if got, ok, err := w.NamespaceName(ref); got != want || !ok || err != nil {
				t.Errorf("%s is %q, %v, %v", ref, got, ok, err)
			}
		}
		w.NamespaceName("ns-nobody")
		w.after(time.Millisecond)
		_, ok, err := w.NamespaceName("ns-nobody")
		wantReason(t, err, ReasonMissing)
		if ok {
			t.Error("a namespace that is not there is ok")
		}
	})
}

// TestService: tasks of a cluster come in one call each hundred, and one that
// ECS does not know yet is asked for again.
func TestService(t *testing.T) {
	run(t, 0, func(w *world) {
		w.cloud.PutCluster(types.Cluster{ClusterName: new("prod")})
		w.cloud.PutCluster(types.Cluster{ClusterName: new("other")})
		var tasks []string
		for i := range 250 {
			tasks = append(tasks, w.putTask("prod", i, fmt.Sprintf("service:s%d", i)))
			w.Service(tasks[i], "prod")
		}
		batch := w.putTask("other", 1, "family:batch")
		w.Service(batch, "other")
		late := strings.Replace(batch, "1", "2", 1)
		late = late[:len(late)-1] + "f"
		w.Service(late, "other")
		w.after(time.Second)
		for i, arn := range tasks {
			if name, ok, err := w.Service(arn, "prod"); name != fmt.Sprintf("s%d", i) || !ok || err != nil {
				t.Fatalf("service of task %d is %q, %v, %v", i, name, ok, err)
			}
		}
		if name, ok, err := w.Service(batch, "other"); name != "" || !ok || err != nil {
			t.Errorf("service of a standalone task is %q, %v, %v", name, ok, err)
		}
		if n := w.calls("DescribeTasks"); n != 4 {
			t.Errorf("%d calls for 250 and 2 tasks", n)
		}
		_, ok, err := w.Service(late, "other")
		wantReason(t, err, ReasonMissing)
		if ok {
			t.Error("a task that ECS does not know is ok")
		}
		w.takeChanges()
		w.cloud.PutTask(types.Task{TaskArn: &late, ClusterArn: new("x"), Group: new("service:late")})
		w.after(5 * time.Second)
		if name, ok, err := w.Service(late, "other"); name != "late" || !ok || err != nil || w.takeChanges() != 1 {
			t.Errorf("a late task's service is %q, %v, %v", name, ok, err)
		}
	})
}

// TestMissingBacksOff: what does not exist costs few calls.
func TestMissingBacksOff(t *testing.T) {
	run(t, 0, func(w *world) {
		w.PortMappings("nobody:1")
		w.after(time.Hour)
		if n := w.calls("DescribeTaskDefinition"); n < 12 || n > 40 {
			t.Errorf("%d calls in an hour", n)
		}
		if n := w.takeChanges(); n != 1 {
			t.Errorf("%d changes", n)
		}
		if p := w.Problems(); len(p) != 0 {
			t.Errorf("problems are %+v", p)
		}
	})
}

// TestRefused: a refusal holds its action back, not each question, says what
// the role lacks, and does not touch other actions.
func TestRefused(t *testing.T) {
	run(t, 0, func(w *world) {
		remove := w.cloud.Inject(fake.Fault{Call: fake.Call{Action: "DescribeTaskDefinition"}, Code: fake.CodeAccessDenied})
		w.cloud.PutCluster(types.Cluster{ClusterName: new("prod")})
		for i := range 50 {
			w.putDefinition(fmt.Sprintf("f%d", i), 80)
			w.PortMappings(fmt.Sprintf("f%d:1", i))
		}
		w.DefaultNamespace("prod")
		w.after(10 * time.Minute)
		if n := w.calls("DescribeTaskDefinition"); n > 15 {
			t.Errorf("%d calls in 10 minutes", n)
		}
		_, ok, err := w.PortMappings("f49:1")
		wantReason(t, err, ReasonDenied)
		if ok || !strings.Contains(err.Error(), "must allow ecs:DescribeTaskDefinition") {
			t.Errorf("got %v, %v", ok, err)
		}
		if _, ok, err := w.DefaultNamespace("prod"); !ok || err != nil {
			t.Errorf("another action: %v, %v", ok, err)
		}
		remove()
		w.after(maxBackoff + 40/defaultRate*time.Second)
		for i := range 50 {
			if _, ok, err := w.PortMappings(fmt.Sprintf("f%d:1", i)); !ok || err != nil {
				t.Errorf("f%d after it was allowed: %v, %v", i, ok, err)
			}
		}
	})
}

// TestBudget: what comes at once is bounded, and so is what follows.
func TestBudget(t *testing.T) {
	run(t, 0.5, func(w *world) {
		for i := range 100 {
			w.putDefinition(fmt.Sprintf("f%d", i), 80)
			w.PortMappings(fmt.Sprintf("f%d:1", i))
		}
		for _, step := range []struct {
			after time.Duration
			calls int
		}{{time.Millisecond, 20}, {10 * time.Second, 25}, {50 * time.Second, 50}, {100 * time.Second, 100}} {
			w.after(step.after)
			if n := w.calls("DescribeTaskDefinition"); n != step.calls {
				t.Errorf("%d calls, want %d", n, step.calls)
			}
		}
	})
}

// TestForgotten: what nobody has asked for in a day is looked up anew.
func TestForgotten(t *testing.T) {
	run(t, 0, func(w *world) {
		w.cloud.PutCluster(types.Cluster{ClusterName: new("prod")})
		w.DefaultNamespace("prod")
		w.after(25 * time.Hour)
		before := w.calls("DescribeClusters")
		w.after(25 * time.Hour)
		if n := w.calls("DescribeClusters") - before; n != 0 {
			t.Errorf("%d calls that nobody has asked for", n)
		}
		if _, ok, _ := w.DefaultNamespace("prod"); ok {
			t.Error("an answer of two days ago stands")
		}
	})
}

// TestEndsWhileCalling: Run ends though a call hangs.
func TestEndsWhileCalling(t *testing.T) {
	run(t, 0, func(w *world) {
		w.cloud.Inject(fake.Fault{Kind: fake.Hang})
		w.PortMappings("f:1")
		w.after(time.Second)
		if n := w.calls("DescribeTaskDefinition"); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestHanging: a call that hangs is given up, and what is wrong has a name.
func TestHanging(t *testing.T) {
	run(t, 0, func(w *world) {
		w.putDefinition("f", 80)
		w.cloud.Inject(fake.Fault{Kind: fake.Hang, Count: 1})
		w.PortMappings("f:1")
		w.after(callTimeout)
		_, _, err := w.PortMappings("f:1")
		wantReason(t, err, ReasonUnreachable)
		w.after(5 * time.Second)
		if _, ok, err := w.PortMappings("f:1"); !ok || err != nil {
			t.Errorf("after a call that hung: %v, %v", ok, err)
		}
		if w.results["ecs:DescribeTaskDefinition unreachable"] != 1 || w.results["ecs:DescribeTaskDefinition success"] != 1 {
			t.Errorf("observed %v", w.results)
		}
	})
}

// TestBucketGivesBack: who gave up waiting has taken no token.
func TestBucketGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1, 1)
		if err := b.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if err := b.wait(ctx); err == nil {
				t.Error("a token that was not there")
			}
			cancel()
		}
		start := time.Now()
		if err := b.wait(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("waited %s, %v", time.Since(start), err)
		}
	})
}
