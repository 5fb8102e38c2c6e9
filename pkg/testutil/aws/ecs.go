package aws

import (
	"context"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// ECS has the methods of ecs.Client.
type ECS struct{ from origin }

func ecsCall(action string) Call { return Call{Service: ServiceECS, Action: action} }

// DescribeClusters describes clusters by name or ARN.
func (e ECS) DescribeClusters(ctx context.Context, in *ecs.DescribeClustersInput, _ ...func(*ecs.Options)) (*ecs.DescribeClustersOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeClusters"), in, func(c *Cloud, account string, in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
		refs := in.Clusters
		if len(refs) == 0 {
			refs = []string{"default"}
		}
		if len(refs) > 100 {
			return nil, invalidParameter("Clusters must have at most 100 entries")
		}
		out := &ecs.DescribeClustersOutput{Clusters: []types.Cluster{}, Failures: []types.Failure{}}
		for _, ref := range refs {
			cluster, err := c.findCluster(account, &ref)
			if err != nil {
				out.Failures = append(out.Failures, types.Failure{Arn: new(ref), Reason: new("MISSING")})
				continue
			}
			out.Clusters = append(out.Clusters, cluster)
		}
		return out, nil
	})
}

// DescribeTasks describes up to 100 tasks of one cluster.
func (e ECS) DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput, _ ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeTasks"), in, func(c *Cloud, account string, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
		cluster, err := c.findCluster(account, in.Cluster)
		if err != nil {
			return nil, err
		}
		if len(in.Tasks) == 0 || len(in.Tasks) > 100 {
			return nil, invalidParameter("Tasks must have between 1 and 100 entries")
		}
		tasks, failures := pick(c.ecs.tasks, account, *cluster.ClusterName, in.Tasks)
		return &ecs.DescribeTasksOutput{Tasks: tasks, Failures: failures}, nil
	})
}

// ListTasks lists the tasks of a cluster; those that shall run unless
// DesiredStatus says otherwise.
func (e ECS) ListTasks(ctx context.Context, in *ecs.ListTasksInput, _ ...func(*ecs.Options)) (*ecs.ListTasksOutput, error) {
	return invoke(ctx, e.from, ecsCall("ListTasks"), in, func(c *Cloud, account string, in *ecs.ListTasksInput) (*ecs.ListTasksOutput, error) {
		cluster, err := c.findCluster(account, in.Cluster)
		if err != nil {
			return nil, err
		}
		status := in.DesiredStatus
		if status == "" {
			status = types.DesiredStatusRunning
		}
		all := arns(c.ecs.tasks, func(arn string, t types.Task) bool {
			return accountOf(arn) == account && clusterOf(arn) == *cluster.ClusterName && value(t.DesiredStatus) == string(status) &&
				(in.ContainerInstance == nil || lastOf(value(t.ContainerInstanceArn)) == lastOf(*in.ContainerInstance)) &&
				(in.ServiceName == nil || value(t.Group) == "service:"+lastOf(*in.ServiceName)) &&
				(in.StartedBy == nil || value(t.StartedBy) == *in.StartedBy) &&
				(in.Family == nil || strings.HasPrefix(lastOf(value(t.TaskDefinitionArn)), *in.Family+":"))
		})
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalidParameter(err.Error())
		}
		return &ecs.ListTasksOutput{TaskArns: part, NextToken: next}, nil
	})
}

// DescribeTaskDefinition describes a revision: by ARN, family:revision, or
// family alone, which means the newest active one.
func (e ECS) DescribeTaskDefinition(ctx context.Context, in *ecs.DescribeTaskDefinitionInput, _ ...func(*ecs.Options)) (*ecs.DescribeTaskDefinitionOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeTaskDefinition"), in, func(c *Cloud, account string, in *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
		ref := value(in.TaskDefinition)
		var found *types.TaskDefinition
		for arn, d := range c.ecs.definitions {
			exact := arn == ref || *d.Family+":"+strconv.Itoa(int(d.Revision)) == ref
			newest := *d.Family == ref && d.Status == types.TaskDefinitionStatusActive && (found == nil || found.Revision < d.Revision)
			if accountOf(arn) == account && (exact || newest) {
				found = &d
			}
		}
		if found == nil {
			return nil, &types.ClientException{Message: new("Unable to describe task definition.")}
		}
		return &ecs.DescribeTaskDefinitionOutput{TaskDefinition: found}, nil
	})
}

// DescribeServices describes up to 10 services of one cluster.
func (e ECS) DescribeServices(ctx context.Context, in *ecs.DescribeServicesInput, _ ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeServices"), in, func(c *Cloud, account string, in *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
		cluster, err := c.findCluster(account, in.Cluster)
		if err != nil {
			return nil, err
		}
		if len(in.Services) == 0 || len(in.Services) > 10 {
			return nil, invalidParameter("Services must have between 1 and 10 entries")
		}
		services, failures := pick(c.ecs.services, account, *cluster.ClusterName, in.Services)
		return &ecs.DescribeServicesOutput{Services: services, Failures: failures}, nil
	})
}

// ListServicesByNamespace lists the services whose newest deployment is in a
// namespace, which is given by name or ARN, over all clusters.
func (e ECS) ListServicesByNamespace(ctx context.Context, in *ecs.ListServicesByNamespaceInput, _ ...func(*ecs.Options)) (*ecs.ListServicesByNamespaceOutput, error) {
	return invoke(ctx, e.from, ecsCall("ListServicesByNamespace"), in, func(c *Cloud, account string, in *ecs.ListServicesByNamespaceInput) (*ecs.ListServicesByNamespaceOutput, error) {
		var ns *namespace
		for _, n := range c.seen(account) {
			if n.arn == value(in.Namespace) || n.name == value(in.Namespace) && n.owner == account {
				ns = n
			}
		}
		if ns == nil {
			return nil, &types.NamespaceNotFoundException{Message: new("The namespace doesn't exist.")}
		}
		all := arns(c.ecs.services, func(arn string, s types.Service) bool {
			if accountOf(arn) != account || len(s.Deployments) == 0 {
				return false
			}
			connect := s.Deployments[0].ServiceConnectConfiguration
			return connect != nil && connect.Enabled && (value(connect.Namespace) == ns.arn || value(connect.Namespace) == ns.name)
		})
		part, next, err := page(all, in.MaxResults, 10, 100, in.NextToken)
		if err != nil {
			return nil, invalidParameter(err.Error())
		}
		return &ecs.ListServicesByNamespaceOutput{ServiceArns: part, NextToken: next}, nil
	})
}

// DescribeServiceRevisions describes up to 20 service revisions by ARN.
func (e ECS) DescribeServiceRevisions(ctx context.Context, in *ecs.DescribeServiceRevisionsInput, _ ...func(*ecs.Options)) (*ecs.DescribeServiceRevisionsOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeServiceRevisions"), in, func(c *Cloud, account string, in *ecs.DescribeServiceRevisionsInput) (*ecs.DescribeServiceRevisionsOutput, error) {
		if len(in.ServiceRevisionArns) == 0 || len(in.ServiceRevisionArns) > 20 {
			return nil, invalidParameter("ServiceRevisionArns must have between 1 and 20 entries")
		}
		out := &ecs.DescribeServiceRevisionsOutput{ServiceRevisions: []types.ServiceRevision{}, Failures: []types.Failure{}}
		for _, arn := range in.ServiceRevisionArns {
			if r, ok := c.ecs.revisions[arn]; ok && accountOf(arn) == account {
				out.ServiceRevisions = append(out.ServiceRevisions, r)
				continue
			}
			out.Failures = append(out.Failures, types.Failure{Arn: new(arn), Reason: new("MISSING")})
		}
		return out, nil
	})
}
