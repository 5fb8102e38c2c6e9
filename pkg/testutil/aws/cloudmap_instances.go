package aws

import (
	"context"
	"maps"
	"slices"
	"strings"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

// RegisterInstance makes an instance or replaces its attributes, after a
// while.
func (m CloudMap) RegisterInstance(ctx context.Context, in *sd.RegisterInstanceInput, _ ...func(*sd.Options)) (*sd.RegisterInstanceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("RegisterInstance"), in, func(c *Cloud, account string, in *sd.RegisterInstanceInput) (*sd.RegisterInstanceOutput, error) {
		s, err := c.serviceOf(account, in.ServiceId)
		if err != nil {
			return nil, err
		}
		id := value(in.InstanceId)
		if id == "" || len(id) > maxInstanceID || !instancePattern.MatchString(id) {
			return nil, invalid("instance id '" + id + "' failed to satisfy constraint")
		}
		if err := checkAttributes(s, in.Attributes); err != nil {
			return nil, err
		}
		if op := s.busy[id]; op != nil {
			if op.Type == types.OperationTypeRegisterInstance && op.creator != "" && op.creator == value(in.CreatorRequestId) {
				return &sd.RegisterInstanceOutput{OperationId: op.Id}, nil // the same request again
			}
			return nil, duplicate(op)
		}
		if err := s.room(id); err != nil {
			return nil, err
		}
		made := &instance{id: id, createdBy: account, creator: value(in.CreatorRequestId), attributes: maps.Clone(in.Attributes)}
		if s.custom != nil {
			made.health = types.CustomHealthStatusHealthy
			if status := in.Attributes[attrHealth]; status != "" {
				made.health = types.CustomHealthStatus(status)
			}
		}
		op := c.change(s, id, made, account, types.OperationTypeRegisterInstance)
		op.creator = made.creator
		return &sd.RegisterInstanceOutput{OperationId: op.Id}, nil
	})
}

// room refuses an instance that is one too many.
func (s *service) room(id string) error {
	if _, ok := s.instances[id]; ok {
		return nil
	}
	if s.expected() >= maxInstances {
		return &types.ResourceLimitExceeded{Message: new("instances of the service exceed the limit of 1000")}
	}
	if s.namespace.instances() >= maxNamespaceInstances {
		return &types.ResourceLimitExceeded{Message: new("instances of the namespace exceed the limit of 2000")}
	}
	return nil
}

// DeregisterInstance removes an instance, after a while.
func (m CloudMap) DeregisterInstance(ctx context.Context, in *sd.DeregisterInstanceInput, _ ...func(*sd.Options)) (*sd.DeregisterInstanceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("DeregisterInstance"), in, func(c *Cloud, account string, in *sd.DeregisterInstanceInput) (*sd.DeregisterInstanceOutput, error) {
		s, err := c.serviceOf(account, in.ServiceId)
		if err != nil {
			return nil, err
		}
		id := value(in.InstanceId)
		if op := s.busy[id]; op != nil {
			return nil, duplicate(op)
		}
		if _, ok := s.instances[id]; !ok {
			return nil, noInstance(id)
		}
		op := c.change(s, id, nil, account, types.OperationTypeDeregisterInstance)
		return &sd.DeregisterInstanceOutput{OperationId: op.Id}, nil
	})
}

// change begins the operation that makes an instance what to is; nil is away.
func (c *Cloud) change(s *service, id string, to *instance, account string, kind types.OperationType) *operation {
	op := c.begin(account, kind, map[string]string{"NAMESPACE": s.namespace.id, "SERVICE": s.id, "INSTANCE": id})
	now := c.params.Now()
	done, shows := c.delay()
	shown := now.Add(shows)
	if before := s.shows[id]; shown.Before(before) {
		shown = before // changes of one instance show in their order
	}
	s.busy[id], s.shows[id] = op, shown
	c.succeed(op, now.Add(done), func() {
		delete(s.busy, id)
		if to == nil {
			delete(s.instances, id)
		} else {
			s.instances[id] = to
		}
	})
	c.later(shown, func() {
		s.show(id, to, shown)
		if s.shows[id].Equal(shown) {
			delete(s.shows, id)
		}
	})
	return op
}

func duplicate(op *operation) error {
	return &types.DuplicateRequest{Message: new("another operation on the instance is in progress"), DuplicateOperationId: op.Id}
}

func noInstance(id string) error {
	return &types.InstanceNotFound{Message: new("No instance found with ID " + id)}
}

// GetInstance finds an instance whose registration is done.
func (m CloudMap) GetInstance(ctx context.Context, in *sd.GetInstanceInput, _ ...func(*sd.Options)) (*sd.GetInstanceOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("GetInstance"), in, func(c *Cloud, account string, in *sd.GetInstanceInput) (*sd.GetInstanceOutput, error) {
		s, err := c.serviceOf(account, in.ServiceId)
		if err != nil {
			return nil, err
		}
		i := s.instances[value(in.InstanceId)]
		if i == nil {
			return nil, noInstance(value(in.InstanceId))
		}
		return &sd.GetInstanceOutput{ResourceOwner: new(s.namespace.owner), Instance: &types.Instance{
			Id: new(i.id), Attributes: maps.Clone(i.attributes), CreatedByAccount: new(i.createdBy), CreatorRequestId: new(i.creator),
		}}, nil
	})
}

// ListInstances lists the instances whose registrations are done.
func (m CloudMap) ListInstances(ctx context.Context, in *sd.ListInstancesInput, _ ...func(*sd.Options)) (*sd.ListInstancesOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("ListInstances"), in, func(c *Cloud, account string, in *sd.ListInstancesInput) (*sd.ListInstancesOutput, error) {
		s, err := c.serviceOf(account, in.ServiceId)
		if err != nil {
			return nil, err
		}
		var all []types.InstanceSummary
		for _, i := range slices.SortedFunc(maps.Values(s.instances), func(a, b *instance) int { return strings.Compare(a.id, b.id) }) {
			all = append(all, types.InstanceSummary{Id: new(i.id), Attributes: maps.Clone(i.attributes), CreatedByAccount: new(i.createdBy)})
		}
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalid(err.Error())
		}
		return &sd.ListInstancesOutput{Instances: part, NextToken: next, ResourceOwner: new(s.namespace.owner)}, nil
	})
}

// UpdateInstanceCustomHealthStatus sets what DiscoverInstances filters by. It
// moves no revision.
func (m CloudMap) UpdateInstanceCustomHealthStatus(ctx context.Context, in *sd.UpdateInstanceCustomHealthStatusInput, _ ...func(*sd.Options)) (*sd.UpdateInstanceCustomHealthStatusOutput, error) {
	return invoke(ctx, m.from, cloudMapCall("UpdateInstanceCustomHealthStatus"), in, func(c *Cloud, account string, in *sd.UpdateInstanceCustomHealthStatusInput) (*sd.UpdateInstanceCustomHealthStatusOutput, error) {
		s, err := c.serviceOf(account, in.ServiceId)
		if err != nil {
			return nil, err
		}
		if s.custom == nil {
			return nil, &types.CustomHealthNotFound{Message: new("service has no custom health check")}
		}
		i := s.instances[value(in.InstanceId)]
		if i == nil {
			return nil, noInstance(value(in.InstanceId))
		}
		i.health = in.Status
		return &sd.UpdateInstanceCustomHealthStatusOutput{}, nil
	})
}
