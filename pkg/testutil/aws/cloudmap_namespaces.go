package aws

import (
	"context"
	"slices"
	"strings"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// CloudMap has the methods of servicediscovery.Client.
type CloudMap struct{ from origin }

func cloudMapCall(action string) Call { return Call{Service: ServiceCloudMap, Action: action} }

// CreateHttpNamespace makes a namespace, after a while.
func (m CloudMap) CreateHttpNamespace(ctx context.Context, in *sd.CreateHttpNamespaceInput, _ ...func(*sd.Options)) (*sd.CreateHttpNamespaceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("CreateHttpNamespace"), in, func(c *Cloud, account string, in *sd.CreateHttpNamespaceInput) (*sd.CreateHttpNamespaceOutput, error) {
		if in.Name == nil || len(*in.Name) > maxNamespaceName || !httpNamePattern.MatchString(*in.Name) {
			return nil, invalid("namespace name is missing or failed to satisfy constraint")
		}
		op, err := c.createNamespace(namespace{
			name: *in.Name, kind: types.NamespaceTypeHttp, owner: account, creator: value(in.CreatorRequestId),
			description: value(in.Description), tags: in.Tags,
		})
		if err != nil {
			return nil, err
		}
		return &sd.CreateHttpNamespaceOutput{OperationId: op.Id}, nil
	})
}

// CreatePrivateDnsNamespace makes a namespace with a hosted zone, after a while.
func (m CloudMap) CreatePrivateDnsNamespace(ctx context.Context, in *sd.CreatePrivateDnsNamespaceInput, _ ...func(*sd.Options)) (*sd.CreatePrivateDnsNamespaceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("CreatePrivateDnsNamespace"), in, func(c *Cloud, account string, in *sd.CreatePrivateDnsNamespaceInput) (*sd.CreatePrivateDnsNamespaceOutput, error) {
		if in.Name == nil || len(*in.Name) > 253 || !dnsNamePattern.MatchString(*in.Name) {
			return nil, invalid("namespace name is missing or failed to satisfy constraint")
		}
		if value(in.Vpc) == "" {
			return nil, invalid("VPC is missing")
		}
		op, err := c.createNamespace(namespace{
			name: *in.Name, kind: types.NamespaceTypeDnsPrivate, owner: account, creator: value(in.CreatorRequestId),
			description: value(in.Description), tags: in.Tags,
		})
		if err != nil {
			return nil, err
		}
		return &sd.CreatePrivateDnsNamespaceOutput{OperationId: op.Id}, nil
	})
}

func (c *Cloud) createNamespace(n namespace) (*operation, error) {
	own := 0
	for _, op := range c.operations {
		if op.account != n.owner || op.Type != types.OperationTypeCreateNamespace {
			continue
		}
		if op.creator == n.creator && n.creator != "" {
			return op, nil // the same request again
		}
		if op.Status == types.OperationStatusPending {
			own++
		}
	}
	for _, other := range c.namespaces {
		if other.owner != n.owner {
			continue
		}
		own++
		if other.name == n.name && other.kind == n.kind {
			return nil, &types.NamespaceAlreadyExists{
				Message: new("Namespace already exists"), NamespaceId: new(other.id), CreatorRequestId: new(other.creator),
			}
		}
	}
	if own >= maxNamespaces {
		return nil, &types.ResourceLimitExceeded{Message: new("namespaces exceed the limit of 50")}
	}
	made := c.newNamespace(n)
	op := c.begin(n.owner, types.OperationTypeCreateNamespace, map[string]string{"NAMESPACE": made.id})
	op.creator = n.creator
	done, _ := c.delay()
	c.succeed(op, c.params.Now().Add(done), func() { c.namespaces = append(c.namespaces, made) })
	return op, nil
}

// newNamespace fills in what a namespace gets. A name that is there already,
// in another type, gets an HTTP name with a suffix.
func (c *Cloud) newNamespace(n namespace) *namespace {
	n.id = c.id("ns-")
	n.arn = c.arn(ServiceCloudMap, n.owner, "namespace/"+n.id)
	n.created = c.params.Now()
	n.shared = make(map[string]bool)
	n.services = make(map[string]*service)
	if n.httpName == "" {
		n.httpName = n.name
		if slices.ContainsFunc(c.namespaces, func(o *namespace) bool { return o.owner == n.owner && o.httpName == n.httpName }) {
			n.httpName += "-" + n.id[len(n.id)-6:]
		}
	}
	return &n
}

// DeleteNamespace deletes an empty namespace.
func (m CloudMap) DeleteNamespace(ctx context.Context, in *sd.DeleteNamespaceInput, _ ...func(*sd.Options)) (*sd.DeleteNamespaceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("DeleteNamespace"), in, func(c *Cloud, account string, in *sd.DeleteNamespaceInput) (*sd.DeleteNamespaceOutput, error) {
		n, err := c.namespaceOf(account, in.Id)
		if err != nil {
			return nil, err
		}
		if len(n.services) > 0 {
			return nil, &types.ResourceInUse{Message: new("namespace has services")}
		}
		op := c.begin(account, types.OperationTypeDeleteNamespace, map[string]string{"NAMESPACE": n.id})
		done, _ := c.delay()
		c.succeed(op, c.params.Now().Add(done), func() {
			c.namespaces = slices.DeleteFunc(c.namespaces, func(o *namespace) bool { return o == n })
		})
		return &sd.DeleteNamespaceOutput{OperationId: op.Id}, nil
	})
}

// GetNamespace finds a namespace by id or ARN.
func (m CloudMap) GetNamespace(ctx context.Context, in *sd.GetNamespaceInput, _ ...func(*sd.Options)) (*sd.GetNamespaceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("GetNamespace"), in, func(c *Cloud, account string, in *sd.GetNamespaceInput) (*sd.GetNamespaceOutput, error) {
		n, err := c.namespaceOf(account, in.Id)
		if err != nil {
			return nil, err
		}
		s := n.summary()
		return &sd.GetNamespaceOutput{Namespace: &types.Namespace{
			Arn: s.Arn, CreateDate: s.CreateDate, CreatorRequestId: new(n.creator), Description: s.Description, Id: s.Id,
			Name: s.Name, Properties: s.Properties, ResourceOwner: s.ResourceOwner, ServiceCount: s.ServiceCount, Type: s.Type,
		}}, nil
	})
}

// ListNamespaces lists the namespaces of an account and those shared with it.
func (m CloudMap) ListNamespaces(ctx context.Context, in *sd.ListNamespacesInput, _ ...func(*sd.Options)) (*sd.ListNamespacesOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("ListNamespaces"), in, func(c *Cloud, account string, in *sd.ListNamespacesInput) (*sd.ListNamespacesOutput, error) {
		for _, f := range in.Filters {
			if err := checkFilter(string(f.Name), f.Values, f.Condition, "TYPE", "NAME", "HTTP_NAME", "RESOURCE_OWNER"); err != nil {
				return nil, err
			}
		}
		var all []types.NamespaceSummary
		for _, n := range c.seen(account) {
			if !slices.ContainsFunc(in.Filters, func(f types.NamespaceFilter) bool { return !n.passes(f, account) }) {
				all = append(all, n.summary())
			}
		}
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalid(err.Error())
		}
		return &sd.ListNamespacesOutput{Namespaces: part, NextToken: next}, nil
	})
}

func checkFilter(name string, values []string, condition types.FilterCondition, names ...string) error {
	if !slices.Contains(names, name) || len(values) == 0 {
		return invalid("filter '" + name + "' is invalid")
	}
	if len(values) > 1 && (condition == "" || condition == types.FilterConditionEq) {
		return invalid("filter '" + name + "' with condition EQ takes one value")
	}
	return nil
}

func (n *namespace) passes(f types.NamespaceFilter, account string) bool {
	switch f.Name {
	case types.NamespaceFilterNameType:
		return slices.Contains(f.Values, string(n.kind))
	case types.NamespaceFilterNameName:
		return passesName(n.name, f)
	case types.NamespaceFilterNameHttpName:
		return passesName(n.httpName, f)
	}
	return (f.Values[0] == "SELF") == (n.owner == account)
}

func passesName(name string, f types.NamespaceFilter) bool {
	if f.Condition == types.FilterConditionBeginsWith {
		return strings.HasPrefix(name, f.Values[0])
	}
	return slices.Contains(f.Values, name)
}

func (n *namespace) summary() types.NamespaceSummary {
	properties := &types.NamespaceProperties{HttpProperties: &types.HttpProperties{HttpName: new(n.httpName)}}
	if n.kind != types.NamespaceTypeHttp {
		properties.DnsProperties = &types.DnsProperties{HostedZoneId: new("Z" + strings.ToUpper(n.id[3:]))}
	}
	return types.NamespaceSummary{
		Arn: new(n.arn), CreateDate: new(n.created), Description: new(n.description), Id: new(n.id), Name: new(n.name),
		Properties: properties, ResourceOwner: new(n.owner), ServiceCount: new(int32(len(n.services))), Type: n.kind,
	}
}

// value is what a pointer points to, or "".
func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
