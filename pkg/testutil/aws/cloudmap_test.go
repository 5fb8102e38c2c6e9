package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

const other = "444455556666"

// cloudMapAPI is what a client of Cloud Map may be: the SDK's or ours.
type cloudMapAPI interface {
	CreateHttpNamespace(context.Context, *sd.CreateHttpNamespaceInput, ...func(*sd.Options)) (*sd.CreateHttpNamespaceOutput, error)
	CreatePrivateDnsNamespace(context.Context, *sd.CreatePrivateDnsNamespaceInput, ...func(*sd.Options)) (*sd.CreatePrivateDnsNamespaceOutput, error)
	GetNamespace(context.Context, *sd.GetNamespaceInput, ...func(*sd.Options)) (*sd.GetNamespaceOutput, error)
	ListNamespaces(context.Context, *sd.ListNamespacesInput, ...func(*sd.Options)) (*sd.ListNamespacesOutput, error)
	DeleteNamespace(context.Context, *sd.DeleteNamespaceInput, ...func(*sd.Options)) (*sd.DeleteNamespaceOutput, error)
	CreateService(context.Context, *sd.CreateServiceInput, ...func(*sd.Options)) (*sd.CreateServiceOutput, error)
	GetService(context.Context, *sd.GetServiceInput, ...func(*sd.Options)) (*sd.GetServiceOutput, error)
	UpdateService(context.Context, *sd.UpdateServiceInput, ...func(*sd.Options)) (*sd.UpdateServiceOutput, error)
	ListServices(context.Context, *sd.ListServicesInput, ...func(*sd.Options)) (*sd.ListServicesOutput, error)
	DeleteService(context.Context, *sd.DeleteServiceInput, ...func(*sd.Options)) (*sd.DeleteServiceOutput, error)
	RegisterInstance(context.Context, *sd.RegisterInstanceInput, ...func(*sd.Options)) (*sd.RegisterInstanceOutput, error)
	DeregisterInstance(context.Context, *sd.DeregisterInstanceInput, ...func(*sd.Options)) (*sd.DeregisterInstanceOutput, error)
	GetInstance(context.Context, *sd.GetInstanceInput, ...func(*sd.Options)) (*sd.GetInstanceOutput, error)
	ListInstances(context.Context, *sd.ListInstancesInput, ...func(*sd.Options)) (*sd.ListInstancesOutput, error)
	DiscoverInstances(context.Context, *sd.DiscoverInstancesInput, ...func(*sd.Options)) (*sd.DiscoverInstancesOutput, error)
	DiscoverInstancesRevision(context.Context, *sd.DiscoverInstancesRevisionInput, ...func(*sd.Options)) (*sd.DiscoverInstancesRevisionOutput, error)
	UpdateInstanceCustomHealthStatus(context.Context, *sd.UpdateInstanceCustomHealthStatusInput, ...func(*sd.Options)) (*sd.UpdateInstanceCustomHealthStatusOutput, error)
	GetOperation(context.Context, *sd.GetOperationInput, ...func(*sd.Options)) (*sd.GetOperationOutput, error)
	ListOperations(context.Context, *sd.ListOperationsInput, ...func(*sd.Options)) (*sd.ListOperationsOutput, error)
	TagResource(context.Context, *sd.TagResourceInput, ...func(*sd.Options)) (*sd.TagResourceOutput, error)
	ListTagsForResource(context.Context, *sd.ListTagsForResourceInput, ...func(*sd.Options)) (*sd.ListTagsForResourceOutput, error)
}

// both runs a test against the server with the SDK's client and against a
// Cloud in process.
func both(t *testing.T, change func(*Params), test func(t *testing.T, w *world, api cloudMapAPI)) {
	t.Run("http", func(t *testing.T) {
		w := newWorld(t, change)
		test(t, w, w.cloudMap(Caller{Label: "test"}))
	})
	t.Run("process", func(t *testing.T) {
		w := newWorld(t, change)
		test(t, w, w.As(Caller{Label: "test"}).CloudMap)
	})
}

func ids(out *sd.DiscoverInstancesOutput) (list []string) {
	for _, i := range out.Instances {
		list = append(list, *i.InstanceId)
	}
	return list
}

// TestNamespaces: a namespace is made by an operation that takes its time.
func TestNamespaces(t *testing.T) {
	both(t, func(p *Params) { p.MinDelay, p.MaxDelay = 2*time.Second, 10*time.Second }, func(t *testing.T, w *world, api cloudMapAPI) {
		ctx := t.Context()
		create := &sd.CreateHttpNamespaceInput{Name: new("prod"), CreatorRequestId: new("1"), Description: new("production")}
		op := must[*sd.CreateHttpNamespaceOutput](t)(api.CreateHttpNamespace(ctx, create))
		if again := must[*sd.CreateHttpNamespaceOutput](t)(api.CreateHttpNamespace(ctx, create)); *again.OperationId != *op.OperationId {
			t.Error("the same request made two operations")
		}
		get := func() *types.Operation {
			return must[*sd.GetOperationOutput](t)(api.GetOperation(ctx, &sd.GetOperationInput{OperationId: op.OperationId})).Operation
		}
		if before := get(); before.Status != types.OperationStatusPending {
			t.Errorf("operation is %s at once", before.Status)
		}
		w.clock.Advance(10 * time.Second)
		after := get()
		if after.Status != types.OperationStatusSuccess || after.Type != types.OperationTypeCreateNamespace {
			t.Errorf("operation is %s %s after 10 s", after.Type, after.Status)
		}
		ns := must[*sd.GetNamespaceOutput](t)(api.GetNamespace(ctx, &sd.GetNamespaceInput{Id: new(after.Targets["NAMESPACE"])})).Namespace
		if *ns.Name != "prod" || *ns.Properties.HttpProperties.HttpName != "prod" || ns.Type != types.NamespaceTypeHttp ||
			*ns.Description != "production" || !ns.CreateDate.Before(w.clock.Now()) || *ns.ResourceOwner != DefaultAccount {
			t.Errorf("namespace is %+v", ns)
		}
		svc := must[*sd.CreateServiceOutput](t)(api.CreateService(ctx, &sd.CreateServiceInput{Name: new("s"), NamespaceId: ns.Id})).Service
		_, err := api.DeleteNamespace(ctx, &sd.DeleteNamespaceInput{Id: ns.Id})
		wantCode(t, err, "ResourceInUse")
		must[*sd.DeleteServiceOutput](t)(api.DeleteService(ctx, &sd.DeleteServiceInput{Id: svc.Id}))
		must[*sd.DeleteNamespaceOutput](t)(api.DeleteNamespace(ctx, &sd.DeleteNamespaceInput{Id: ns.Id}))
		w.clock.Advance(10 * time.Second)
		_, err = api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: new("prod"), ServiceName: new("s")})
		wantCode(t, err, "NamespaceNotFound")
	})
}

// TestInstances follows an instance from its registration to its end.
func TestInstances(t *testing.T) {
	both(t, func(p *Params) { p.MinDelay, p.MaxDelay = 2*time.Second, 10*time.Second }, func(t *testing.T, w *world, api cloudMapAPI) {
		ctx := t.Context()
		ns, _ := w.AddNamespace(Namespace{Name: "prod"})
		svc := must[*sd.CreateServiceOutput](t)(api.CreateService(ctx, &sd.CreateServiceInput{Name: new("cd--orders"), NamespaceId: &ns})).Service
		if svc.Type != types.ServiceTypeHttp || *svc.NamespaceId != ns || *svc.InstanceCount != 0 {
			t.Errorf("service is %+v", svc)
		}
		discover := func() *sd.DiscoverInstancesOutput {
			t.Helper()
			return must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: new("prod"), ServiceName: new("cd--orders")}))
		}
		empty := discover()
		if empty.Instances == nil || len(empty.Instances) != 0 {
			t.Errorf("a service without instances answers %+v", empty.Instances)
		}
		attributes := map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.7", "AWS_INSTANCE_PORT": "8080", "connectd.state": "active"}
		register := func(state string) error {
			attributes := maps.Clone(attributes)
			attributes["connectd.state"] = state
			_, err := api.RegisterInstance(ctx, &sd.RegisterInstanceInput{ServiceId: svc.Id, InstanceId: new("task-1"), Attributes: attributes, CreatorRequestId: &state})
			return err
		}
		deregister := func() (*sd.DeregisterInstanceOutput, error) {
			return api.DeregisterInstance(ctx, &sd.DeregisterInstanceInput{ServiceId: svc.Id, InstanceId: new("task-1")})
		}
		for range 2 { // the same request twice is one operation
			if err := register("active"); err != nil {
				t.Fatal(err)
			}
		}
		wantCode(t, register("draining"), "DuplicateRequest")
		_, err := deregister()
		wantCode(t, err, "DuplicateRequest")
		_, err = api.GetInstance(ctx, &sd.GetInstanceInput{ServiceId: svc.Id, InstanceId: new("task-1")})
		wantCode(t, err, "InstanceNotFound")
		w.clock.Advance(1900 * time.Millisecond)
		if out := discover(); len(out.Instances) != 0 {
			t.Errorf("an instance shows sooner than MinDelay: %v", ids(out))
		}
		w.clock.Advance(8100 * time.Millisecond)
		one := discover()
		if len(one.Instances) != 1 || *one.Instances[0].InstanceId != "task-1" || !maps.Equal(one.Instances[0].Attributes, attributes) ||
			*one.InstancesRevision <= *empty.InstancesRevision || *one.Instances[0].NamespaceName != "prod" {
			t.Errorf("after 10 s DiscoverInstances answers %+v", one)
		}

		if err := register("draining"); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(10 * time.Second)
		two := discover()
		if len(two.Instances) != 1 || two.Instances[0].Attributes["connectd.state"] != "draining" || *two.InstancesRevision <= *one.InstancesRevision {
			t.Errorf("after a change DiscoverInstances answers %+v", two)
		}
		revision := must[*sd.DiscoverInstancesRevisionOutput](t)(api.DiscoverInstancesRevision(ctx, &sd.DiscoverInstancesRevisionInput{NamespaceName: new("prod"), ServiceName: new("cd--orders")}))
		if *revision.InstancesRevision != *two.InstancesRevision {
			t.Errorf("revisions are %d and %d", *revision.InstancesRevision, *two.InstancesRevision)
		}
		got := must[*sd.GetInstanceOutput](t)(api.GetInstance(ctx, &sd.GetInstanceInput{ServiceId: svc.Arn, InstanceId: new("task-1")})).Instance
		list := must[*sd.ListInstancesOutput](t)(api.ListInstances(ctx, &sd.ListInstancesInput{ServiceId: svc.Id})).Instances
		if got.Attributes["connectd.state"] != "draining" || len(list) != 1 || *list[0].Id != *got.Id {
			t.Errorf("GetInstance answers %+v, ListInstances %+v", got, list)
		}
		_, err = api.DeleteService(ctx, &sd.DeleteServiceInput{Id: svc.Id})
		wantCode(t, err, "ResourceInUse")

		gone := must[*sd.DeregisterInstanceOutput](t)(deregister())
		w.clock.Advance(10 * time.Second)
		if out := discover(); len(out.Instances) != 0 {
			t.Errorf("deregistered instances show: %v", ids(out))
		}
		ops := must[*sd.ListOperationsOutput](t)(api.ListOperations(ctx, &sd.ListOperationsInput{Filters: []types.OperationFilter{{
			Name: types.OperationFilterNameType, Values: []string{"DEREGISTER_INSTANCE"},
		}}})).Operations
		if len(ops) != 1 || *ops[0].Id != *gone.OperationId || ops[0].Status != types.OperationStatusSuccess {
			t.Errorf("ListOperations answers %+v", ops)
		}
		_, err = deregister()
		wantCode(t, err, "InstanceNotFound")
	})
}

// TestStaleAndShuffled: now and then an answer is one revision behind, for a
// while after a change; the order is another one each time, and both are the
// same for the same seed.
func TestStaleAndShuffled(t *testing.T) {
	run := func(seed uint64) (stale, orders int, log string) {
		w := newWorld(t, func(p *Params) { p.Seed, p.Stale = seed, 0.1 })
		api := w.As(Caller{}).CloudMap
		ns, _ := w.AddNamespace(Namespace{Name: "prod"})
		svc := w.AddService(ns, "s", false)
		for i := range 5 {
			w.AddInstance(svc, fmt.Sprint(i), map[string]string{"k": "v"})
		}
		seen := make(map[string]bool)
		ask := func() {
			out := must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(t.Context(), &sd.DiscoverInstancesInput{NamespaceName: new("prod"), ServiceName: new("s")}))
			switch *out.InstancesRevision {
			case firstRevision + 4:
				stale++
				if len(out.Instances) != 4 || slices.Contains(ids(out), "4") {
					t.Errorf("a stale answer has %v", ids(out))
				}
			case firstRevision + 5:
				seen[strings.Join(ids(out), "")] = true
			default:
				t.Errorf("revision %d", *out.InstancesRevision)
			}
			log += fmt.Sprintln(ids(out))
		}
		for range 200 {
			ask()
		}
		during := stale
		w.clock.Advance(10 * time.Second)
		for range 100 {
			ask()
		}
		if stale != during {
			t.Error("an answer is stale 10 s after the change")
		}
		return stale, len(seen), log
	}
	stale, orders, log := run(7)
	if stale < 5 || stale > 50 || orders < 60 {
		t.Errorf("%d stale answers of 200, %d orders", stale, orders)
	}
	if _, _, again := run(7); again != log {
		t.Error("the same seed gives other answers")
	}
	if _, _, again := run(8); again == log {
		t.Error("another seed gives the same answers")
	}
}

// TestShared: a namespace of another account needs OwnerAccount or an ARN.
func TestShared(t *testing.T) {
	both(t, nil, func(t *testing.T, w *world, api cloudMapAPI) {
		ctx := t.Context()
		ns, arn := w.AddNamespace(Namespace{Name: "shared", Account: other, Shared: []string{DefaultAccount}})
		hidden, hiddenARN := w.AddNamespace(Namespace{Name: "hidden", Account: other})
		w.AddService(hidden, "s", false)
		w.AddNamespace(Namespace{Name: "own"})
		svc := must[*sd.CreateServiceOutput](t)(api.CreateService(ctx, &sd.CreateServiceInput{Name: new("s"), NamespaceId: &arn})).Service
		if *svc.CreatedByAccount != DefaultAccount || *svc.ResourceOwner != other {
			t.Errorf("service is %+v", svc)
		}
		register := &sd.RegisterInstanceInput{ServiceId: svc.Id, InstanceId: new("x"), Attributes: map[string]string{"k": "v"}}
		_, err := api.RegisterInstance(ctx, register)
		wantCode(t, err, "ServiceNotFound")
		register.ServiceId = svc.Arn
		must[*sd.RegisterInstanceOutput](t)(api.RegisterInstance(ctx, register))

		discover := &sd.DiscoverInstancesInput{NamespaceName: new("shared"), ServiceName: new("s")}
		_, err = api.DiscoverInstances(ctx, discover)
		wantCode(t, err, "NamespaceNotFound")
		discover.OwnerAccount = new(other)
		if out := must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, discover)); len(out.Instances) != 1 {
			t.Errorf("instances in a shared namespace: %v", ids(out))
		}
		discover.NamespaceName = new("hidden")
		_, err = api.DiscoverInstances(ctx, discover)
		wantCode(t, err, "NamespaceNotFound")
		_, err = api.GetNamespace(ctx, &sd.GetNamespaceInput{Id: &ns})
		wantCode(t, err, "NamespaceNotFound")
		must[*sd.GetNamespaceOutput](t)(api.GetNamespace(ctx, &sd.GetNamespaceInput{Id: &arn}))
		_, err = api.GetNamespace(ctx, &sd.GetNamespaceInput{Id: &hiddenARN})
		wantCode(t, err, "NamespaceNotFound")
		list := must[*sd.ListNamespacesOutput](t)(api.ListNamespaces(ctx, &sd.ListNamespacesInput{Filters: []types.NamespaceFilter{{
			Name: types.NamespaceFilterNameResourceOwner, Values: []string{"OTHER_ACCOUNTS"},
		}}}))
		if len(list.Namespaces) != 1 || *list.Namespaces[0].Arn != arn {
			t.Errorf("namespaces of other accounts: %+v", list.Namespaces)
		}
		services := must[*sd.ListServicesOutput](t)(api.ListServices(ctx, &sd.ListServicesInput{Filters: []types.ServiceFilter{{
			Name: types.ServiceFilterNameNamespaceId, Values: []string{arn},
		}}}))
		if len(services.Services) != 1 || *services.Services[0].Name != "s" {
			t.Errorf("services of a shared namespace: %+v", services.Services)
		}
		w.Share(ns, DefaultAccount, false)
		discover.NamespaceName = new("shared")
		_, err = api.DiscoverInstances(ctx, discover)
		wantCode(t, err, "NamespaceNotFound")
	})
}

// TestNames: an HTTP name that is not the name, tags, descriptions.
func TestNames(t *testing.T) {
	both(t, nil, func(t *testing.T, w *world, api cloudMapAPI) {
		ctx := t.Context()
		w.AddNamespace(Namespace{Name: "prod", Type: types.NamespaceTypeDnsPrivate})
		must[*sd.CreateHttpNamespaceOutput](t)(api.CreateHttpNamespace(ctx, &sd.CreateHttpNamespaceInput{Name: new("prod")}))
		list := must[*sd.ListNamespacesOutput](t)(api.ListNamespaces(ctx, &sd.ListNamespacesInput{Filters: []types.NamespaceFilter{
			{Name: types.NamespaceFilterNameName, Values: []string{"prod"}},
			{Name: types.NamespaceFilterNameType, Values: []string{"HTTP"}},
		}}))
		if len(list.Namespaces) != 1 {
			t.Fatalf("namespaces: %+v", list.Namespaces)
		}
		ns := list.Namespaces[0]
		httpName := *ns.Properties.HttpProperties.HttpName
		if *ns.Name != "prod" || !strings.HasPrefix(httpName, "prod-") {
			t.Errorf("a name that was used before has the HTTP name %q", httpName)
		}
		svc := must[*sd.CreateServiceOutput](t)(api.CreateService(ctx, &sd.CreateServiceInput{Name: new("s"), NamespaceId: ns.Id, Tags: []types.Tag{{Key: new("a"), Value: new("1")}}})).Service
		must[*sd.TagResourceOutput](t)(api.TagResource(ctx, &sd.TagResourceInput{ResourceARN: svc.Arn, Tags: []types.Tag{{Key: new("b"), Value: new("2")}}}))
		tags := must[*sd.ListTagsForResourceOutput](t)(api.ListTagsForResource(ctx, &sd.ListTagsForResourceInput{ResourceARN: svc.Arn})).Tags
		if len(tags) != 2 || *tags[0].Key != "a" || *tags[1].Value != "2" {
			t.Errorf("tags are %+v", tags)
		}
		must[*sd.UpdateServiceOutput](t)(api.UpdateService(ctx, &sd.UpdateServiceInput{Id: svc.Id, Service: &types.ServiceChange{Description: new("new")}}))
		if got := must[*sd.GetServiceOutput](t)(api.GetService(ctx, &sd.GetServiceInput{Id: svc.Id})).Service; *got.Description != "new" {
			t.Errorf("service is %+v", got)
		}
	})
}

// TestCustomHealth: a status filters, and moves no revision.
func TestCustomHealth(t *testing.T) {
	both(t, nil, func(t *testing.T, w *world, api cloudMapAPI) {
		ctx := t.Context()
		ns, _ := w.AddNamespace(Namespace{Name: "prod"})
		svc := w.AddService(ns, "s", true)
		plain := w.AddService(ns, "plain", false)
		for _, id := range []string{"1", "2"} {
			w.AddInstance(svc, id, map[string]string{"zone": "z" + id})
			w.AddInstance(plain, id, map[string]string{"zone": "z" + id})
		}
		find := func(filter types.HealthStatusFilter) *sd.DiscoverInstancesOutput {
			t.Helper()
			return must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{NamespaceName: new("prod"), ServiceName: new("s"), HealthStatus: filter}))
		}
		before := find("ALL")
		set := func(service, id string, status types.CustomHealthStatus) error {
			_, err := api.UpdateInstanceCustomHealthStatus(ctx, &sd.UpdateInstanceCustomHealthStatusInput{ServiceId: &service, InstanceId: &id, Status: status})
			return err
		}
		wantCode(t, set(plain, "1", "UNHEALTHY"), "CustomHealthNotFound")
		wantCode(t, set(svc, "3", "UNHEALTHY"), "InstanceNotFound")
		if err := set(svc, "1", "UNHEALTHY"); err != nil {
			t.Fatal(err)
		}
		if got := ids(find("HEALTHY")); !slices.Equal(got, []string{"2"}) {
			t.Errorf("healthy: %v", got)
		}
		if got := ids(find("UNHEALTHY")); !slices.Equal(got, []string{"1"}) {
			t.Errorf("unhealthy: %v", got)
		}
		if err := set(svc, "2", "UNHEALTHY"); err != nil {
			t.Fatal(err)
		}
		if got := find("HEALTHY_OR_ELSE_ALL"); len(got.Instances) != 2 || *got.InstancesRevision != *before.InstancesRevision {
			t.Errorf("healthy or else all: %+v", got)
		}
		out := must[*sd.DiscoverInstancesOutput](t)(api.DiscoverInstances(ctx, &sd.DiscoverInstancesInput{
			NamespaceName: new("prod"), ServiceName: new("plain"), HealthStatus: "UNHEALTHY", QueryParameters: map[string]string{"zone": "z2"},
			OptionalParameters: map[string]string{"zone": "z9"},
		}))
		if !slices.Equal(ids(out), []string{"2"}) || out.Instances[0].HealthStatus != types.HealthStatusUnknown {
			t.Errorf("a query by attributes: %+v", out.Instances)
		}
	})
}
