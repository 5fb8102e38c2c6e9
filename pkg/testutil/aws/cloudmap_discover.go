package aws

import (
	"context"
	"maps"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// DiscoverInstances answers with instances in random order, without pages.
func (m CloudMap) DiscoverInstances(ctx context.Context, in *sd.DiscoverInstancesInput, _ ...func(*sd.Options)) (*sd.DiscoverInstancesOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("DiscoverInstances"), in, func(c *Cloud, account string, in *sd.DiscoverInstancesInput) (*sd.DiscoverInstancesOutput, error) {
		most := int32(defaultDiscovered)
		if in.MaxResults != nil {
			most = *in.MaxResults
		}
		if most < 1 || most > maxDiscovered {
			return nil, invalid("maxResults must be between 1 and 1000")
		}
		switch in.HealthStatus {
		case "", types.HealthStatusFilterAll, types.HealthStatusFilterHealthy, types.HealthStatusFilterUnhealthy, types.HealthStatusFilterHealthyOrElseAll:
		default:
			return nil, invalid("health status '" + string(in.HealthStatus) + "' is unknown")
		}
		s, err := c.discovered(account, in.NamespaceName, in.ServiceName, in.OwnerAccount)
		if err != nil {
			return nil, err
		}
		all, revision := c.view(s)
		all = s.filter(all, in)
		order := c.rng.Perm(len(all))
		out := &sd.DiscoverInstancesOutput{InstancesRevision: new(revision), Instances: []types.HttpInstanceSummary{}}
		for _, i := range order[:min(len(order), int(most))] {
			out.Instances = append(out.Instances, types.HttpInstanceSummary{
				InstanceId: new(all[i].id), NamespaceName: new(s.namespace.httpName), ServiceName: new(s.name),
				HealthStatus: all[i].status(), Attributes: maps.Clone(all[i].attributes),
			})
		}
		return out, nil
	})
}

// DiscoverInstancesRevision answers with the revision that DiscoverInstances
// would have.
func (m CloudMap) DiscoverInstancesRevision(ctx context.Context, in *sd.DiscoverInstancesRevisionInput, _ ...func(*sd.Options)) (*sd.DiscoverInstancesRevisionOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("DiscoverInstancesRevision"), in, func(c *Cloud, account string, in *sd.DiscoverInstancesRevisionInput) (*sd.DiscoverInstancesRevisionOutput, error) {
		s, err := c.discovered(account, in.NamespaceName, in.ServiceName, in.OwnerAccount)
		if err != nil {
			return nil, err
		}
		_, revision := c.view(s)
		return &sd.DiscoverInstancesRevisionOutput{InstancesRevision: new(revision)}, nil
	})
}

// discovered finds a service by names: the namespace by its HTTP name, in the
// caller's account unless another owner is given that shares it.
func (c *Cloud) discovered(account string, namespaceName, serviceName, owner *string) (*service, error) {
	if value(namespaceName) == "" || value(serviceName) == "" {
		return nil, invalid("namespace name or service name is missing")
	}
	if owner == nil {
		owner = &account
	}
	for _, n := range c.namespaces {
		if n.httpName != *namespaceName || n.owner != *owner || !n.seenBy(account) {
			continue
		}
		if s := n.services[*serviceName]; s != nil {
			return s, nil
		}
		return nil, &types.ServiceNotFound{Message: new("Service not found: " + *serviceName)}
	}
	return nil, &types.NamespaceNotFound{Message: new("Namespace not found: " + *namespaceName)}
}

func (i *instance) status() types.HealthStatus {
	if i.health == "" {
		return types.HealthStatusUnknown
	}
	return types.HealthStatus(i.health)
}

// filter leaves out what the query does. The health status counts only where
// a service has a health check.
func (s *service) filter(all []*instance, in *sd.DiscoverInstancesInput) []*instance {
	matching := keep(all, func(i *instance) bool { return i.has(in.QueryParameters) })
	if len(in.OptionalParameters) > 0 {
		if some := keep(matching, func(i *instance) bool { return i.has(in.OptionalParameters) }); len(some) > 0 {
			matching = some
		}
	}
	if s.custom == nil || in.HealthStatus == types.HealthStatusFilterAll {
		return matching
	}
	healthy := keep(matching, func(i *instance) bool { return i.health == types.CustomHealthStatusHealthy })
	switch {
	case in.HealthStatus == types.HealthStatusFilterUnhealthy:
		return keep(matching, func(i *instance) bool { return i.health != types.CustomHealthStatusHealthy })
	case in.HealthStatus == types.HealthStatusFilterHealthyOrElseAll && len(healthy) == 0:
		return matching
	}
	return healthy
}

func (i *instance) has(parameters map[string]string) bool {
	for key, want := range parameters {
		if got, ok := i.attributes[key]; !ok || got != want {
			return false
		}
	}
	return true
}

func keep(all []*instance, ok func(*instance) bool) (kept []*instance) {
	for _, i := range all {
		if ok(i) {
			kept = append(kept, i)
		}
	}
	return kept
}
