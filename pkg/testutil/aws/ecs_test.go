package aws

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ecsAPI is what a client of ECS may be: the SDK's or ours.
type ecsAPI interface {
	DescribeClusters(context.Context, *ecs.DescribeClustersInput, ...func(*ecs.Options)) (*ecs.DescribeClustersOutput, error)
	DescribeTasks(context.Context, *ecs.DescribeTasksInput, ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error)
	ListTasks(context.Context, *ecs.ListTasksInput, ...func(*ecs.Options)) (*ecs.ListTasksOutput, error)
	DescribeTaskDefinition(context.Context, *ecs.DescribeTaskDefinitionInput, ...func(*ecs.Options)) (*ecs.DescribeTaskDefinitionOutput, error)
	DescribeServices(context.Context, *ecs.DescribeServicesInput, ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error)
	ListServicesByNamespace(context.Context, *ecs.ListServicesByNamespaceInput, ...func(*ecs.Options)) (*ecs.ListServicesByNamespaceOutput, error)
	DescribeServiceRevisions(context.Context, *ecs.DescribeServiceRevisionsInput, ...func(*ecs.Options)) (*ecs.DescribeServiceRevisionsOutput, error)
	DescribeContainerInstances(context.Context, *ecs.DescribeContainerInstancesInput, ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error)
	PutAttributes(context.Context, *ecs.PutAttributesInput, ...func(*ecs.Options)) (*ecs.PutAttributesOutput, error)
	DeleteAttributes(context.Context, *ecs.DeleteAttributesInput, ...func(*ecs.Options)) (*ecs.DeleteAttributesOutput, error)
	ListAttributes(context.Context, *ecs.ListAttributesInput, ...func(*ecs.Options)) (*ecs.ListAttributesOutput, error)
}

func bothECS(t *testing.T, test func(t *testing.T, w *world, api ecsAPI)) {
	t.Run("http", func(t *testing.T) {
		w := newWorld(t, nil)
		test(t, w, w.ecs(Caller{}))
	})
	t.Run("process", func(t *testing.T) {
		w := newWorld(t, nil)
		test(t, w, w.As(Caller{}).ECS)
	})
}

func (w *world) taskARN(cluster string, i int) string {
	return w.ARN(ServiceECS, "", fmt.Sprintf("task/%s/%032x", cluster, i))
}

func reasons(failures []types.Failure) (list []string) {
	for _, f := range failures {
		list = append(list, *f.Arn+" "+*f.Reason)
	}
	return list
}

// TestTasks: tasks are found, listed by what they are, shown for an hour after
// they have stopped, and then missing.
func TestTasks(t *testing.T) {
	bothECS(t, func(t *testing.T, w *world, api ecsAPI) {
		ctx := t.Context()
		cluster := w.PutCluster(types.Cluster{ClusterName: new("prod")})
		elsewhere := w.PutCluster(types.Cluster{ClusterName: new("other")})
		instance := w.ARN(ServiceECS, "", "container-instance/prod/abc")
		for i := range 3 {
			w.PutTask(types.Task{
				TaskArn: new(w.taskARN("prod", i)), ClusterArn: &cluster, Group: new([]string{"service:orders", "family:batch", "service:web"}[i]),
				ContainerInstanceArn: &instance, TaskDefinitionArn: new(w.ARN(ServiceECS, "", "task-definition/f:1")), CreatedAt: new(w.clock.Now()),
			})
		}
		w.PutTask(types.Task{TaskArn: new(w.taskARN("other", 9)), ClusterArn: &elsewhere})
		describe := func(cluster string, tasks ...string) *ecs.DescribeTasksOutput {
			t.Helper()
			return must[*ecs.DescribeTasksOutput](t)(api.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: &cluster, Tasks: tasks}))
		}
		out := describe("prod", w.taskARN("prod", 0), fmt.Sprintf("%032x", 2), w.taskARN("other", 9), "nobody")
		if len(out.Tasks) != 2 || *out.Tasks[0].Group != "service:orders" || *out.Tasks[1].Group != "service:web" ||
			*out.Tasks[0].LastStatus != "RUNNING" || !out.Tasks[0].CreatedAt.Equal(w.clock.Now()) {
			t.Errorf("tasks are %+v", out.Tasks)
		}
		if got := reasons(out.Failures); !slices.Equal(got, []string{w.taskARN("other", 9) + " MISSING", "nobody MISSING"}) {
			t.Errorf("failures are %v", got)
		}
		for name, in := range map[string]*ecs.ListTasksInput{
			"by service":  {Cluster: &cluster, ServiceName: new("orders")},
			"by page":     {Cluster: new("prod"), MaxResults: new(int32(1))},
			"of instance": {Cluster: new("prod"), ContainerInstance: new("abc"), Family: new("f"), MaxResults: new(int32(1))},
		} {
			if list := must[*ecs.ListTasksOutput](t)(api.ListTasks(ctx, in)); !slices.Equal(list.TaskArns, []string{w.taskARN("prod", 0)}) {
				t.Errorf("tasks %s are %v", name, list.TaskArns)
			}
		}

		w.StopTask(w.taskARN("prod", 0))
		w.clock.Advance(59 * time.Minute)
		if out := describe("prod", w.taskARN("prod", 0)); len(out.Tasks) != 1 || *out.Tasks[0].LastStatus != "STOPPED" {
			t.Errorf("a stopped task is %+v", out.Tasks)
		}
		w.clock.Advance(time.Minute)
		if out := describe("prod", w.taskARN("prod", 0)); len(out.Failures) != 1 {
			t.Error("a task that stopped an hour ago is not missing")
		}
		_, err := api.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: new("nobody"), Tasks: []string{"x"}})
		wantCode(t, err, "ClusterNotFoundException")
		_, err = api.DescribeTasks(ctx, &ecs.DescribeTasksInput{Cluster: new("prod"), Tasks: make([]string, 101)})
		wantCode(t, err, "InvalidParameterException")
		_, err = api.ListTasks(ctx, &ecs.ListTasksInput{Cluster: new("prod"), MaxResults: new(int32(101))})
		wantCode(t, err, "InvalidParameterException")
	})
}

// TestDefinitions: a task definition by each of its names, and clusters.
func TestDefinitions(t *testing.T) {
	bothECS(t, func(t *testing.T, w *world, api ecsAPI) {
		ctx := t.Context()
		var arns []string
		for r := range int32(2) {
			arns = append(arns, w.PutTaskDefinition(types.TaskDefinition{
				Family: new("orders"), Revision: r + 1, NetworkMode: types.NetworkModeAwsvpc,
				ContainerDefinitions: []types.ContainerDefinition{{Name: new("app"), PortMappings: []types.PortMapping{{
					Name: new("http"), ContainerPort: new(8080 + r), Protocol: types.TransportProtocolTcp, AppProtocol: types.ApplicationProtocolHttp,
				}}}},
			}))
		}
		for ref, port := range map[string]int32{"orders": 8081, "orders:1": 8080, arns[0]: 8080} {
			out := must[*ecs.DescribeTaskDefinitionOutput](t)(api.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &ref}))
			m := out.TaskDefinition.ContainerDefinitions[0].PortMappings[0]
			if *m.ContainerPort != port || m.AppProtocol != types.ApplicationProtocolHttp || *m.Name != "http" {
				t.Errorf("%s has the port mapping %+v", ref, m)
			}
		}
		_, err := api.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: new("orders:3")})
		wantCode(t, err, "ClientException")

		_, ns := w.AddNamespace(Namespace{Name: "prod"})
		w.PutCluster(types.Cluster{ClusterName: new("prod"), ServiceConnectDefaults: &types.ClusterServiceConnectDefaults{Namespace: &ns}})
		out := must[*ecs.DescribeClustersOutput](t)(api.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{"prod", "nobody"}}))
		if len(out.Clusters) != 1 || *out.Clusters[0].ServiceConnectDefaults.Namespace != ns || *out.Clusters[0].Status != "ACTIVE" ||
			!slices.Equal(reasons(out.Failures), []string{"nobody MISSING"}) {
			t.Errorf("clusters are %+v", out)
		}
	})
}

// TestServices: services of a namespace, and what their deployments say.
func TestServices(t *testing.T) {
	bothECS(t, func(t *testing.T, w *world, api ecsAPI) {
		ctx := t.Context()
		_, ns := w.AddNamespace(Namespace{Name: "prod"})
		cluster := w.PutCluster(types.Cluster{ClusterName: new("c")})
		arn := func(name string) string { return w.ARN(ServiceECS, "", "service/c/"+name) }
		for i, namespace := range []string{"prod", ns, "prod"} {
			w.PutECSService(types.Service{ServiceArn: new(arn(fmt.Sprint(i))), ClusterArn: &cluster, Deployments: []types.Deployment{{
				ServiceConnectConfiguration: &types.ServiceConnectConfiguration{Enabled: i != 2, Namespace: &namespace, Services: []types.ServiceConnectService{{
					PortName: new("http"), ClientAliases: []types.ServiceConnectClientAlias{{Port: new(int32(80)), DnsName: new("orders")}},
				}}},
			}}})
		}
		for _, ref := range []string{"prod", ns} {
			first := must[*ecs.ListServicesByNamespaceOutput](t)(api.ListServicesByNamespace(ctx, &ecs.ListServicesByNamespaceInput{Namespace: &ref, MaxResults: new(int32(1))}))
			second := must[*ecs.ListServicesByNamespaceOutput](t)(api.ListServicesByNamespace(ctx, &ecs.ListServicesByNamespaceInput{Namespace: &ref, NextToken: first.NextToken}))
			if got := slices.Concat(first.ServiceArns, second.ServiceArns); !slices.Equal(got, []string{arn("0"), arn("1")}) {
				t.Errorf("services of %s are %v", ref, got)
			}
		}
		_, err := api.ListServicesByNamespace(ctx, &ecs.ListServicesByNamespaceInput{Namespace: new("nobody")})
		wantCode(t, err, "NamespaceNotFoundException")
		out := must[*ecs.DescribeServicesOutput](t)(api.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &cluster, Services: []string{"0", "9"}}))
		if len(out.Services) != 1 || *out.Services[0].Deployments[0].ServiceConnectConfiguration.Services[0].ClientAliases[0].DnsName != "orders" || len(out.Failures) != 1 {
			t.Errorf("services are %+v", out)
		}
		_, err = api.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &cluster, Services: make([]string, 11)})
		wantCode(t, err, "InvalidParameterException")

		revision := w.ARN(ServiceECS, "", "service-revision/c/0/1")
		w.PutServiceRevision(types.ServiceRevision{ServiceRevisionArn: &revision, ServiceArn: new(arn("0"))})
		revisions := must[*ecs.DescribeServiceRevisionsOutput](t)(api.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision, revision + "9"}}))
		if len(revisions.ServiceRevisions) != 1 || *revisions.ServiceRevisions[0].ServiceArn != arn("0") || len(revisions.Failures) != 1 {
			t.Errorf("revisions are %+v", revisions)
		}
	})
}

// TestInstanceAttributes: attributes come, are listed, and go.
func TestInstanceAttributes(t *testing.T) {
	bothECS(t, func(t *testing.T, w *world, api ecsAPI) {
		ctx := t.Context()
		w.PutCluster(types.Cluster{ClusterName: new("c")})
		arn := w.ARN(ServiceECS, "", "container-instance/c/abc")
		w.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: &arn, Attributes: []types.Attribute{{Name: new("ecs.os-type"), Value: new("linux")}}})
		put := func(attributes ...types.Attribute) error {
			_, err := api.PutAttributes(ctx, &ecs.PutAttributesInput{Cluster: new("c"), Attributes: attributes})
			return err
		}
		ready := types.Attribute{Name: new("connectd.ready"), Value: new("true"), TargetId: &arn}
		if err := put(ready); err != nil {
			t.Fatal(err)
		}
		out := must[*ecs.DescribeContainerInstancesOutput](t)(api.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{Cluster: new("c"), ContainerInstances: []string{"abc", "x"}}))
		if len(out.ContainerInstances) != 1 || len(out.ContainerInstances[0].Attributes) != 2 || len(out.Failures) != 1 || w.Attributes(arn)["connectd.ready"] != "true" {
			t.Errorf("container instances are %+v", out)
		}
		list := must[*ecs.ListAttributesOutput](t)(api.ListAttributes(ctx, &ecs.ListAttributesInput{Cluster: new("c"), TargetType: types.TargetTypeContainerInstance, AttributeName: ready.Name}))
		if len(list.Attributes) != 1 || *list.Attributes[0].TargetId != arn {
			t.Errorf("attributes are %+v", list.Attributes)
		}
		wantCode(t, put(types.Attribute{Name: new("x"), TargetId: new("abc")}), "InvalidParameterException")
		wantCode(t, put(types.Attribute{Name: new("a b"), TargetId: &arn}), "InvalidParameterException")
		wantCode(t, put(types.Attribute{Name: new("x"), Value: new("ö"), TargetId: &arn}), "InvalidParameterException")
		wantCode(t, put(types.Attribute{Name: new("x"), TargetId: new(arn + "x")}), "TargetNotFoundException")
		wantCode(t, put(slices.Repeat([]types.Attribute{ready}, 11)...), "InvalidParameterException")
		var nine []types.Attribute
		for i := range 9 {
			nine = append(nine, types.Attribute{Name: new(fmt.Sprintf("k%d", i)), TargetId: new("abc"), TargetType: types.TargetTypeContainerInstance})
		}
		if err := put(nine...); err != nil {
			t.Errorf("ten custom attributes: %v", err)
		}
		wantCode(t, put(types.Attribute{Name: new("more"), TargetId: &arn}), "AttributeLimitExceededException")
		must[*ecs.DeleteAttributesOutput](t)(api.DeleteAttributes(ctx, &ecs.DeleteAttributesInput{Cluster: new("c"), Attributes: []types.Attribute{ready}}))
		if got := w.Attributes(arn); len(got) != 10 || got["connectd.ready"] != "" {
			t.Errorf("attributes after deletion are %v", got)
		}
	})
}
