package aws

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// CreateService makes a service at once.
func (m CloudMap) CreateService(ctx context.Context, in *sd.CreateServiceInput, _ ...func(*sd.Options)) (*sd.CreateServiceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("CreateService"), in, func(c *Cloud, account string, in *sd.CreateServiceInput) (*sd.CreateServiceOutput, error) {
		if err := checkServiceName(in.Name); err != nil {
			return nil, err
		}
		ref := in.NamespaceId
		if ref == nil && in.DnsConfig != nil {
			ref = in.DnsConfig.NamespaceId
		}
		n, err := c.namespaceOf(account, ref)
		if err != nil {
			return nil, err
		}
		if err := checkKind(n, in); err != nil {
			return nil, err
		}
		if s := n.find(*in.Name, in.DnsConfig != nil); s != nil {
			if s.creator != "" && s.creator == value(in.CreatorRequestId) {
				return &sd.CreateServiceOutput{Service: s.describe()}, nil // the same request again
			}
			return nil, &types.ServiceAlreadyExists{
				Message: new("Service already exists"), ServiceId: new(s.id), ServiceArn: new(s.arn), CreatorRequestId: new(s.creator),
			}
		}
		s := c.newService(n, service{
			name: *in.Name, description: value(in.Description), createdBy: account, creator: value(in.CreatorRequestId),
			dns: in.DnsConfig, health: in.HealthCheckConfig, custom: in.HealthCheckCustomConfig, tags: in.Tags,
		})
		return &sd.CreateServiceOutput{Service: s.describe()}, nil
	})
}

// checkKind wants DNS settings where a namespace has DNS, unless the service
// says that it has none.
func checkKind(n *namespace, in *sd.CreateServiceInput) error {
	http := in.Type == types.ServiceTypeOptionHttp
	switch {
	case in.DnsConfig != nil && (http || n.kind == types.NamespaceTypeHttp):
		return invalid("DnsConfig is not allowed for a service that is discovered over HTTP only")
	case in.DnsConfig == nil && !http && n.kind != types.NamespaceTypeHttp:
		return invalid("DnsConfig or Type HTTP is required in a DNS namespace")
	case in.HealthCheckConfig != nil && in.HealthCheckCustomConfig != nil:
		return invalid("specify either HealthCheckConfig or HealthCheckCustomConfig")
	case in.HealthCheckConfig != nil && n.kind == types.NamespaceTypeDnsPrivate:
		return invalid("HealthCheckConfig is not supported in private DNS namespaces")
	case in.DnsConfig != nil && len(in.DnsConfig.DnsRecords) == 0:
		return invalid("DnsRecords are missing")
	}
	return nil
}

// find finds a service by name; case does not count where DNS is involved.
func (n *namespace) find(name string, dns bool) *service {
	if s := n.services[name]; s != nil {
		return s
	}
	for _, s := range n.services {
		if (dns || s.dns != nil) && strings.EqualFold(s.name, name) {
			return s
		}
	}
	return nil
}

func (c *Cloud) newService(n *namespace, s service) *service {
	s.id = c.id("srv-")
	s.arn = c.arn(ServiceCloudMap, n.owner, "service/"+s.id)
	s.namespace = n
	s.created = c.params.Now()
	s.kind = types.ServiceTypeHttp
	if s.dns != nil {
		s.kind = types.ServiceTypeDnsHttp
	}
	s.instances = make(map[string]*instance)
	s.busy = make(map[string]*operation)
	s.shows = make(map[string]time.Time)
	s.revision = firstRevision
	n.services[s.name] = &s
	c.services[s.id] = &s
	return &s
}

// GetService finds a service by id or ARN.
func (m CloudMap) GetService(ctx context.Context, in *sd.GetServiceInput, _ ...func(*sd.Options)) (*sd.GetServiceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("GetService"), in, func(c *Cloud, account string, in *sd.GetServiceInput) (*sd.GetServiceOutput, error) {
		s, err := c.serviceOf(account, in.Id)
		if err != nil {
			return nil, err
		}
		return &sd.GetServiceOutput{Service: s.describe()}, nil
	})
}

// UpdateService changes the description, after a while; it can be asked for
// nothing else here.
func (m CloudMap) UpdateService(ctx context.Context, in *sd.UpdateServiceInput, _ ...func(*sd.Options)) (*sd.UpdateServiceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("UpdateService"), in, func(c *Cloud, account string, in *sd.UpdateServiceInput) (*sd.UpdateServiceOutput, error) {
		s, err := c.serviceOf(account, in.Id)
		if err != nil {
			return nil, err
		}
		if in.Service == nil {
			return nil, invalid("service is missing")
		}
		op := c.begin(account, types.OperationTypeUpdateService, map[string]string{"SERVICE": s.id})
		done, _ := c.delay()
		c.succeed(op, c.params.Now().Add(done), func() {
			if in.Service.Description != nil {
				s.description = *in.Service.Description
			}
		})
		return &sd.UpdateServiceOutput{OperationId: op.Id}, nil
	})
}

// DeleteService deletes a service without instances.
func (m CloudMap) DeleteService(ctx context.Context, in *sd.DeleteServiceInput, _ ...func(*sd.Options)) (*sd.DeleteServiceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("DeleteService"), in, func(c *Cloud, account string, in *sd.DeleteServiceInput) (*sd.DeleteServiceOutput, error) {
		s, err := c.serviceOf(account, in.Id)
		if err != nil {
			return nil, err
		}
		if len(s.instances) > 0 || len(s.busy) > 0 {
			return nil, &types.ResourceInUse{Message: new("service has instances")}
		}
		delete(s.namespace.services, s.name)
		delete(c.services, s.id)
		return &sd.DeleteServiceOutput{}, nil
	})
}

// ListServices lists services of all namespaces that an account sees, or of one.
func (m CloudMap) ListServices(ctx context.Context, in *sd.ListServicesInput, _ ...func(*sd.Options)) (*sd.ListServicesOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("ListServices"), in, func(c *Cloud, account string, in *sd.ListServicesInput) (*sd.ListServicesOutput, error) {
		for _, f := range in.Filters {
			if err := checkFilter(string(f.Name), f.Values, f.Condition, "NAMESPACE_ID", "RESOURCE_OWNER"); err != nil {
				return nil, err
			}
		}
		var all []types.ServiceSummary
		for _, n := range c.seen(account) {
			if slices.ContainsFunc(in.Filters, func(f types.ServiceFilter) bool { return !n.holds(f, account) }) {
				continue
			}
			for _, s := range n.sorted() {
				all = append(all, s.summary())
			}
		}
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalid(err.Error())
		}
		return &sd.ListServicesOutput{Services: part, NextToken: next}, nil
	})
}

func (n *namespace) holds(f types.ServiceFilter, account string) bool {
	if f.Name == types.ServiceFilterNameResourceOwner {
		return (f.Values[0] == "SELF") == (n.owner == account)
	}
	return f.Values[0] == n.arn || f.Values[0] == n.id && n.owner == account
}

func (s *service) summary() types.ServiceSummary {
	return types.ServiceSummary{
		Arn: new(s.arn), CreateDate: new(s.created), CreatedByAccount: new(s.createdBy), Description: new(s.description),
		DnsConfig: s.dns, HealthCheckConfig: s.health, HealthCheckCustomConfig: s.custom, Id: new(s.id),
		InstanceCount: new(int32(len(s.instances))), Name: new(s.name), ResourceOwner: new(s.namespace.owner), Type: s.kind,
	}
}

func (s *service) describe() *types.Service {
	v := s.summary()
	return &types.Service{
		Arn: v.Arn, CreateDate: v.CreateDate, CreatedByAccount: v.CreatedByAccount, CreatorRequestId: new(s.creator),
		Description: v.Description, DnsConfig: v.DnsConfig, HealthCheckConfig: v.HealthCheckConfig,
		HealthCheckCustomConfig: v.HealthCheckCustomConfig, Id: v.Id, InstanceCount: v.InstanceCount, Name: v.Name,
		NamespaceId: new(s.namespace.id), ResourceOwner: v.ResourceOwner, Type: v.Type,
	}
}

// tagsOf finds the tags of a namespace or service by ARN.
func (c *Cloud) tagsOf(account string, arn *string) (*[]types.Tag, error) {
	for _, n := range c.namespaces {
		if n.arn == value(arn) && n.seenBy(account) {
			return &n.tags, nil
		}
	}
	if s, err := c.serviceOf(account, arn); err == nil && s.arn == *arn {
		return &s.tags, nil
	}
	return nil, &types.ResourceNotFoundException{Message: new("no resource " + value(arn))}
}

// TagResource adds tags to a namespace or service, or replaces them.
func (m CloudMap) TagResource(ctx context.Context, in *sd.TagResourceInput, _ ...func(*sd.Options)) (*sd.TagResourceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("TagResource"), in, func(c *Cloud, account string, in *sd.TagResourceInput) (*sd.TagResourceOutput, error) {
		tags, err := c.tagsOf(account, in.ResourceARN)
		if err != nil {
			return nil, err
		}
		all := make(map[string]string)
		for _, t := range slices.Concat(*tags, in.Tags) {
			all[value(t.Key)] = value(t.Value)
		}
		if len(all) > 50 {
			return nil, &types.TooManyTagsException{Message: new("more than 50 tags")}
		}
		*tags = nil
		for _, key := range slices.Sorted(maps.Keys(all)) {
			*tags = append(*tags, types.Tag{Key: new(key), Value: new(all[key])})
		}
		return &sd.TagResourceOutput{}, nil
	})
}

// ListTagsForResource lists the tags of a namespace or service.
func (m CloudMap) ListTagsForResource(ctx context.Context, in *sd.ListTagsForResourceInput, _ ...func(*sd.Options)) (*sd.ListTagsForResourceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("ListTagsForResource"), in, func(c *Cloud, account string, in *sd.ListTagsForResourceInput) (*sd.ListTagsForResourceOutput, error) {
		tags, err := c.tagsOf(account, in.ResourceARN)
		if err != nil {
			return nil, err
		}
		return &sd.ListTagsForResourceOutput{Tags: append([]types.Tag{}, *tags...)}, nil
	})
}
