package cloudmap

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// API is the part of Cloud Map that a node uses. *servicediscovery.Client is
// one; tests and the simulator have theirs.
type API interface {
	DiscoverInstances(context.Context, *sd.DiscoverInstancesInput, ...func(*sd.Options)) (*sd.DiscoverInstancesOutput, error)
	DiscoverInstancesRevision(context.Context, *sd.DiscoverInstancesRevisionInput, ...func(*sd.Options)) (*sd.DiscoverInstancesRevisionOutput, error)
	ListNamespaces(context.Context, *sd.ListNamespacesInput, ...func(*sd.Options)) (*sd.ListNamespacesOutput, error)
	ListServices(context.Context, *sd.ListServicesInput, ...func(*sd.Options)) (*sd.ListServicesOutput, error)
	Writer
}

// Writer is the part of Cloud Map that changes it.
type Writer interface {
	CreateHttpNamespace(context.Context, *sd.CreateHttpNamespaceInput, ...func(*sd.Options)) (*sd.CreateHttpNamespaceOutput, error)
	CreateService(context.Context, *sd.CreateServiceInput, ...func(*sd.Options)) (*sd.CreateServiceOutput, error)
	RegisterInstance(context.Context, *sd.RegisterInstanceInput, ...func(*sd.Options)) (*sd.RegisterInstanceOutput, error)
	DeregisterInstance(context.Context, *sd.DeregisterInstanceInput, ...func(*sd.Options)) (*sd.DeregisterInstanceOutput, error)
}

// ECS is what a node asks ECS about other nodes: whether their tasks still
// are, and by which aliases Service Connect knows its services.
type ECS interface {
	DescribeTasks(context.Context, *ecs.DescribeTasksInput, ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error)
	DescribeContainerInstances(context.Context, *ecs.DescribeContainerInstancesInput, ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error)
	ListServicesByNamespace(context.Context, *ecs.ListServicesByNamespaceInput, ...func(*ecs.Options)) (*ecs.ListServicesByNamespaceOutput, error)
	DescribeServices(context.Context, *ecs.DescribeServicesInput, ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error)
}

// NewAPI returns Cloud Map's client as a Source wants it: one request a call,
// for the Source itself counts, paces and repeats them, and without the data-
// prefix on the host of an endpoint that the environment names.
func NewAPI(cfg aws.Config) API {
	return sd.NewFromConfig(cfg, func(o *sd.Options) {
		o.Retryer = aws.NopRetryer{}
		if o.BaseEndpoint != nil {
			o.APIOptions = append(o.APIOptions, withoutHostPrefix)
		}
	})
}

// NewECS returns the client of ECS as a Source wants it.
func NewECS(cfg aws.Config) ECS {
	return ecs.NewFromConfig(cfg, func(o *ecs.Options) { o.Retryer = aws.NopRetryer{} })
}

func withoutHostPrefix(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("WithoutHostPrefix",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
		}), middleware.Before)
}

// call is the name of an API in metrics and errors: what an IAM policy allows.
type call string

const (
	callDiscover        call = "servicediscovery:DiscoverInstances"
	callRevision        call = "servicediscovery:DiscoverInstancesRevision"
	callListNamespaces  call = "servicediscovery:ListNamespaces"
	callListServices    call = "servicediscovery:ListServices"
	callCreateNamespace call = "servicediscovery:CreateHttpNamespace"
	callCreateService   call = "servicediscovery:CreateService"
	callRegister        call = "servicediscovery:RegisterInstance"
	callDeregister      call = "servicediscovery:DeregisterInstance"
	callTasks           call = "ecs:DescribeTasks"
	callInstances       call = "ecs:DescribeContainerInstances"
	callByNamespace     call = "ecs:ListServicesByNamespace"
	callServices        call = "ecs:DescribeServices"
)
