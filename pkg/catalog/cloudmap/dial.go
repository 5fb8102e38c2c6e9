package cloudmap

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

// Dial returns Cloud Map and ECS as a Source wants them, with the credentials
// that the SDK finds in its environment. Region "" is the environment's, else
// this instance's. Nothing is read before the first call, so that a start does
// not wait for AWS.
func Dial(region string) (API, ECS) {
	c := &client{region: region}
	return c, c
}

type client struct {
	region string

	mu  sync.Mutex
	api API // nil: no configuration yet
	ecs ECS
}

var errNoRegion = errors.New("neither the environment nor the instance names a region, say it in cloudMap.region")

func (c *client) configured(ctx context.Context) (API, ECS, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api != nil {
		return c.api, c.ecs, nil
	}
	option := config.WithEC2IMDSRegion()
	if c.region != "" {
		option = config.WithRegion(c.region)
	}
	cfg, err := config.LoadDefaultConfig(ctx, option)
	if err == nil && cfg.Region == "" {
		err = errNoRegion
	}
	if err != nil {
		return nil, nil, fmt.Errorf("configure the AWS SDK: %w", err)
	}
	c.api, c.ecs = NewAPI(cfg), NewECS(cfg)
	return c.api, c.ecs, nil
}

// The calls below differ in their types alone.

type mapCall[I, O any] func(context.Context, *I, ...func(*sd.Options)) (*O, error)

func onMap[I, O any](ctx context.Context, c *client, in *I, opts []func(*sd.Options), method func(API) mapCall[I, O]) (*O, error) {
	api, _, err := c.configured(ctx)
	if err != nil {
		return nil, err
	}
	return method(api)(ctx, in, opts...)
}

type ecsCall[I, O any] func(context.Context, *I, ...func(*ecs.Options)) (*O, error)

func onECS[I, O any](ctx context.Context, c *client, in *I, opts []func(*ecs.Options), method func(ECS) ecsCall[I, O]) (*O, error) {
	_, api, err := c.configured(ctx)
	if err != nil {
		return nil, err
	}
	return method(api)(ctx, in, opts...)
}

func (c *client) DiscoverInstances(ctx context.Context, in *sd.DiscoverInstancesInput, opts ...func(*sd.Options)) (*sd.DiscoverInstancesOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.DiscoverInstancesInput, sd.DiscoverInstancesOutput] { return a.DiscoverInstances })
}

func (c *client) DiscoverInstancesRevision(ctx context.Context, in *sd.DiscoverInstancesRevisionInput, opts ...func(*sd.Options)) (*sd.DiscoverInstancesRevisionOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.DiscoverInstancesRevisionInput, sd.DiscoverInstancesRevisionOutput] {
		return a.DiscoverInstancesRevision
	})
}

func (c *client) ListNamespaces(ctx context.Context, in *sd.ListNamespacesInput, opts ...func(*sd.Options)) (*sd.ListNamespacesOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.ListNamespacesInput, sd.ListNamespacesOutput] { return a.ListNamespaces })
}

func (c *client) ListServices(ctx context.Context, in *sd.ListServicesInput, opts ...func(*sd.Options)) (*sd.ListServicesOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.ListServicesInput, sd.ListServicesOutput] { return a.ListServices })
}

func (c *client) CreateHttpNamespace(ctx context.Context, in *sd.CreateHttpNamespaceInput, opts ...func(*sd.Options)) (*sd.CreateHttpNamespaceOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.CreateHttpNamespaceInput, sd.CreateHttpNamespaceOutput] {
		return a.CreateHttpNamespace
	})
}

func (c *client) CreateService(ctx context.Context, in *sd.CreateServiceInput, opts ...func(*sd.Options)) (*sd.CreateServiceOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.CreateServiceInput, sd.CreateServiceOutput] { return a.CreateService })
}

func (c *client) RegisterInstance(ctx context.Context, in *sd.RegisterInstanceInput, opts ...func(*sd.Options)) (*sd.RegisterInstanceOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.RegisterInstanceInput, sd.RegisterInstanceOutput] { return a.RegisterInstance })
}

func (c *client) DeregisterInstance(ctx context.Context, in *sd.DeregisterInstanceInput, opts ...func(*sd.Options)) (*sd.DeregisterInstanceOutput, error) {
	return onMap(ctx, c, in, opts, func(a API) mapCall[sd.DeregisterInstanceInput, sd.DeregisterInstanceOutput] {
		return a.DeregisterInstance
	})
}

func (c *client) DescribeTasks(ctx context.Context, in *ecs.DescribeTasksInput, opts ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error) {
	return onECS(ctx, c, in, opts, func(a ECS) ecsCall[ecs.DescribeTasksInput, ecs.DescribeTasksOutput] { return a.DescribeTasks })
}

func (c *client) DescribeContainerInstances(ctx context.Context, in *ecs.DescribeContainerInstancesInput, opts ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error) {
	return onECS(ctx, c, in, opts, func(a ECS) ecsCall[ecs.DescribeContainerInstancesInput, ecs.DescribeContainerInstancesOutput] {
		return a.DescribeContainerInstances
	})
}

func (c *client) ListServicesByNamespace(ctx context.Context, in *ecs.ListServicesByNamespaceInput, opts ...func(*ecs.Options)) (*ecs.ListServicesByNamespaceOutput, error) {
	return onECS(ctx, c, in, opts, func(a ECS) ecsCall[ecs.ListServicesByNamespaceInput, ecs.ListServicesByNamespaceOutput] {
		return a.ListServicesByNamespace
	})
}

func (c *client) DescribeServices(ctx context.Context, in *ecs.DescribeServicesInput, opts ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error) {
	return onECS(ctx, c, in, opts, func(a ECS) ecsCall[ecs.DescribeServicesInput, ecs.DescribeServicesOutput] { return a.DescribeServices })
}
