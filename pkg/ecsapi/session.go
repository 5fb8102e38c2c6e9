package ecsapi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

// reader is what is read from ECS.
type reader interface {
	DescribeTaskDefinition(context.Context, *ecs.DescribeTaskDefinitionInput, ...func(*ecs.Options)) (*ecs.DescribeTaskDefinitionOutput, error)
	DescribeClusters(context.Context, *ecs.DescribeClustersInput, ...func(*ecs.Options)) (*ecs.DescribeClustersOutput, error)
	DescribeTasks(context.Context, *ecs.DescribeTasksInput, ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error)
	DescribeContainerInstances(context.Context, *ecs.DescribeContainerInstancesInput, ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error)
}

// writer is what is written there.
type writer interface {
	PutAttributes(context.Context, *ecs.PutAttributesInput, ...func(*ecs.Options)) (*ecs.PutAttributesOutput, error)
	DeleteAttributes(context.Context, *ecs.DeleteAttributesInput, ...func(*ecs.Options)) (*ecs.DeleteAttributesOutput, error)
}

type namespaces interface {
	GetNamespace(context.Context, *servicediscovery.GetNamespaceInput, ...func(*servicediscovery.Options)) (*servicediscovery.GetNamespaceOutput, error)
}

// session is the clients of one region.
type session struct {
	ecs interface {
		reader
		writer
	}
	namespaces  namespaces
	credentials aws.CredentialsProvider // nil: none are needed, in tests
}

// connection makes a session when it is first needed: the region may have to
// be asked for, over IMDSv2.
type connection struct {
	dial func(context.Context) (*session, error)

	mu   sync.Mutex
	made *session
}

func (c *connection) session(ctx context.Context) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		made, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.made = made
	}
	return c.made, nil
}

// dial makes the SDK's clients. Endpoints, credentials and region come from
// the environment first, the region from IMDSv2 last.
func dial(ctx context.Context, region string) (*session, error) {
	options := []func(*config.LoadOptions) error{config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} })}
	if region != "" {
		options = append(options, config.WithRegion(region))
	} else {
		options = append(options, config.WithEC2IMDSRegion())
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("find region and credentials of AWS: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("find region of AWS: neither the environment nor IMDSv2 names one")
	}
	return &session{
		ecs:         ecs.NewFromConfig(cfg),
		namespaces:  servicediscovery.NewFromConfig(cfg),
		credentials: cfg.Credentials,
	}, nil
}

// call makes one call within callTimeout and says why it failed. Of the
// budget it takes one token, which it waits for.
func (c *Cache) call(ctx context.Context, action string, do func(context.Context, *session) error) error {
	if err := c.bucket.wait(ctx); err != nil {
		return explain(action, err)
	}
	err := c.try(ctx, action, do)
	result := "success"
	if err != nil {
		result = err.Reason
	}
	if c.params.Observe != nil {
		c.params.Observe(action, result)
	}
	if err != nil {
		return err
	}
	return nil
}

func (c *Cache) try(ctx context.Context, action string, do func(context.Context, *session) error) *Error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := c.connection.session(ctx)
	if err != nil {
		return explain(action, err)
	}
	if s.credentials != nil {
		// Asked for by themselves, so that what fails has its name. They are
		// cached and renewed by the SDK.
		if _, err := s.credentials.Retrieve(ctx); err != nil {
			return &Error{Action: action, Reason: ReasonCredentials, err: err}
		}
	}
	if err := do(ctx, s); err != nil {
		return explain(action, err)
	}
	return nil
}
