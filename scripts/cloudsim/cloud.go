package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
)

const (
	namespace = "prod"
	// shows is how long a registration takes at most until it is seen, as far
	// as is known.
	shows = 5 * time.Second
	// window is over which a rate's peak is taken: buckets of AWS hold more
	// than a second's worth.
	window = 10 * time.Second
)

// cloud is a Cloud Map with one namespace, without quotas: what would be too
// much is counted.
type cloud struct {
	now      time.Time
	random   *rand.Rand
	services map[string]*cloudService
	order    []*cloudService
	pending  []change // sorted by time
	counts   map[string]*count
}

type cloudService struct {
	name      string
	revision  int64
	instances map[string]map[string]string
	booked    map[string]bool             // those that are there or will be
	list      []types.HttpInstanceSummary // of the revision; nil: to be made
}

// change is an operation that is under way.
type change struct {
	at      time.Time
	service *cloudService
	id      string
	attrs   map[string]string // nil: deregister
}

// count is calls of one API: in all, and in the busiest window.
type count struct {
	all    int
	window int64
	now    int
	most   int
}

func newCloud(at time.Time) *cloud {
	return &cloud{now: at, random: rand.New(rand.NewPCG(1, 2)), services: map[string]*cloudService{}, counts: map[string]*count{}}
}

func (c *cloud) count(api string) {
	n := c.counts[api]
	if n == nil {
		n = &count{}
		c.counts[api] = n
	}
	n.all++
	if w := c.now.UnixNano() / int64(window); w != n.window {
		n.window, n.now = w, 0
	}
	n.now++
	n.most = max(n.most, n.now)
}

// settle lets operations show that are done.
func (c *cloud) settle() {
	for len(c.pending) > 0 && !c.pending[0].at.After(c.now) {
		p := c.pending[0]
		c.pending = c.pending[1:]
		if p.attrs == nil {
			delete(p.service.instances, p.id)
		} else {
			p.service.instances[p.id] = p.attrs
		}
		p.service.revision++
		p.service.list = nil
	}
}

func (c *cloud) later(s *cloudService, id string, attrs map[string]string) {
	at := c.now.Add(time.Duration(c.random.Float64() * float64(shows)))
	i := len(c.pending)
	for i > 0 && c.pending[i-1].at.After(at) {
		i--
	}
	c.pending = append(c.pending, change{})
	copy(c.pending[i+1:], c.pending[i:])
	c.pending[i] = change{at, s, id, attrs}
}

func (s *cloudService) all() []types.HttpInstanceSummary {
	if s.list == nil {
		s.list = make([]types.HttpInstanceSummary, 0, len(s.instances))
		for id, attrs := range s.instances {
			s.list = append(s.list, types.HttpInstanceSummary{InstanceId: new(id), Attributes: attrs})
		}
	}
	return s.list
}

// instances counts those that are registered, and those of the service with most.
func (c *cloud) instances() (all, largest int) {
	for _, s := range c.order {
		all += len(s.instances)
		largest = max(largest, len(s.instances))
	}
	return all, largest
}

// client is the cloud as one node calls it.
type client struct {
	*cloud
	counted bool
	// alone, if set, is a node that sees nothing but what it registered
	// itself, so that it costs the simulation nothing.
	alone string
}

func (c *client) called(api string) {
	if c.counted {
		c.count(api)
	}
	c.settle()
}

func (c *client) find(name *string) (*cloudService, error) {
	s := c.services[*name]
	if s == nil {
		return nil, &types.ServiceNotFound{}
	}
	return s, nil
}

func (c *client) DiscoverInstances(_ context.Context, in *sd.DiscoverInstancesInput, _ ...func(*sd.Options)) (*sd.DiscoverInstancesOutput, error) {
	c.called("DiscoverInstances")
	s, err := c.find(in.ServiceName)
	if err != nil {
		return nil, err
	}
	list := s.all()
	if c.alone != "" {
		var own []types.HttpInstanceSummary
		for _, each := range list {
			if *each.InstanceId == c.alone || each.Attributes["connectd.node"] == c.alone {
				own = append(own, each)
			}
		}
		list = own
	}
	return &sd.DiscoverInstancesOutput{Instances: list, InstancesRevision: new(s.revision)}, nil
}

func (c *client) DiscoverInstancesRevision(_ context.Context, in *sd.DiscoverInstancesRevisionInput, _ ...func(*sd.Options)) (*sd.DiscoverInstancesRevisionOutput, error) {
	c.called("DiscoverInstancesRevision")
	s, err := c.find(in.ServiceName)
	if err != nil {
		return nil, err
	}
	return &sd.DiscoverInstancesRevisionOutput{InstancesRevision: new(s.revision)}, nil
}

func (c *client) ListNamespaces(context.Context, *sd.ListNamespacesInput, ...func(*sd.Options)) (*sd.ListNamespacesOutput, error) {
	c.called("ListNamespaces")
	return &sd.ListNamespacesOutput{Namespaces: []types.NamespaceSummary{{Name: new(namespace), Id: new("ns-1"), ResourceOwner: new(account)}}}, nil
}

func (c *client) ListServices(_ context.Context, in *sd.ListServicesInput, _ ...func(*sd.Options)) (*sd.ListServicesOutput, error) {
	c.called("ListServices")
	from := 0
	if in.NextToken != nil {
		var err error
		if from, err = strconv.Atoi(*in.NextToken); err != nil {
			return nil, err
		}
	}
	out := &sd.ListServicesOutput{}
	for _, s := range c.order[from:min(len(c.order), from+int(*in.MaxResults))] {
		out.Services = append(out.Services, types.ServiceSummary{Name: new(s.name), Id: new(s.name)})
	}
	if next := from + int(*in.MaxResults); next < len(c.order) {
		out.NextToken = new(strconv.Itoa(next))
	}
	return out, nil
}

func (c *client) CreateHttpNamespace(context.Context, *sd.CreateHttpNamespaceInput, ...func(*sd.Options)) (*sd.CreateHttpNamespaceOutput, error) {
	return nil, errors.New("nobody needs that here")
}

func (c *client) CreateService(_ context.Context, in *sd.CreateServiceInput, _ ...func(*sd.Options)) (*sd.CreateServiceOutput, error) {
	c.called("CreateService")
	if c.services[*in.Name] != nil {
		return nil, &types.ServiceAlreadyExists{ServiceId: in.Name}
	}
	s := &cloudService{name: *in.Name, revision: 1, instances: map[string]map[string]string{}, booked: map[string]bool{}}
	c.services[s.name] = s
	c.order = append(c.order, s)
	return &sd.CreateServiceOutput{Service: &types.Service{Id: in.Name}}, nil
}

func (c *client) RegisterInstance(_ context.Context, in *sd.RegisterInstanceInput, _ ...func(*sd.Options)) (*sd.RegisterInstanceOutput, error) {
	c.called("RegisterInstance")
	s, err := c.find(in.ServiceId)
	if err != nil {
		return nil, err
	}
	if len(s.booked) >= serviceInstances && !s.booked[*in.InstanceId] {
		return nil, &types.ResourceLimitExceeded{}
	}
	s.booked[*in.InstanceId] = true
	c.later(s, *in.InstanceId, in.Attributes)
	return &sd.RegisterInstanceOutput{}, nil
}

func (c *client) DeregisterInstance(_ context.Context, in *sd.DeregisterInstanceInput, _ ...func(*sd.Options)) (*sd.DeregisterInstanceOutput, error) {
	c.called("DeregisterInstance")
	s, err := c.find(in.ServiceId)
	if err != nil {
		return nil, err
	}
	delete(s.booked, *in.InstanceId)
	c.later(s, *in.InstanceId, nil)
	return &sd.DeregisterInstanceOutput{}, nil
}

// The following are ECS, where everything runs that is asked for.

func (c *client) DescribeTasks(_ context.Context, in *ecs.DescribeTasksInput, _ ...func(*ecs.Options)) (*ecs.DescribeTasksOutput, error) {
	c.called("ecs:DescribeTasks")
	out := &ecs.DescribeTasksOutput{}
	for _, arn := range in.Tasks {
		out.Tasks = append(out.Tasks, ecstypes.Task{TaskArn: &arn, LastStatus: new("RUNNING")})
	}
	return out, nil
}

func (c *client) DescribeContainerInstances(_ context.Context, in *ecs.DescribeContainerInstancesInput, _ ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error) {
	c.called("ecs:DescribeContainerInstances")
	out := &ecs.DescribeContainerInstancesOutput{}
	for _, arn := range in.ContainerInstances {
		out.ContainerInstances = append(out.ContainerInstances, ecstypes.ContainerInstance{ContainerInstanceArn: &arn, Status: new("ACTIVE")})
	}
	return out, nil
}

func (c *client) ListServicesByNamespace(context.Context, *ecs.ListServicesByNamespaceInput, ...func(*ecs.Options)) (*ecs.ListServicesByNamespaceOutput, error) {
	c.called("ecs:ListServicesByNamespace")
	return &ecs.ListServicesByNamespaceOutput{}, nil
}

func (c *client) DescribeServices(context.Context, *ecs.DescribeServicesInput, ...func(*ecs.Options)) (*ecs.DescribeServicesOutput, error) {
	c.called("ecs:DescribeServices")
	return &ecs.DescribeServicesOutput{}, nil
}
