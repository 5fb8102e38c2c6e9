package ecsapi

import (
	"cmp"
	"context"
	"strings"

	"connectd/pkg/lb"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
)

// answer makes the call for a batch of questions, which are of one kind; only
// tasks come more than one at a time.
func (s *session) answer(ctx context.Context, batch []key) (map[key]answer, error) {
	k := batch[0]
	var a answer
	var err error
	switch k.kind {
	case portMappings:
		a, err = s.ports(ctx, k.name)
	case defaultNamespace:
		a, err = s.defaultNamespace(ctx, k.name)
	case namespaceName:
		a, err = s.namespaceName(ctx, k.name)
	default:
		return s.services(ctx, batch)
	}
	if err != nil {
		return nil, err
	}
	return map[key]answer{k: a}, nil
}

func (s *session) ports(ctx context.Context, taskDefinition string) (answer, error) {
	out, err := s.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &taskDefinition})
	if err != nil {
		return answer{}, err
	}
	ports := []lb.PortMapping{}
	if out.TaskDefinition == nil {
		return answer{value: ports}, nil
	}
	for _, container := range out.TaskDefinition.ContainerDefinitions {
		for _, m := range container.PortMappings {
			// A range of ports has no single one, nor a name to be
			// published by.
			if port := aws.ToInt32(m.ContainerPort); port > 0 && port < 1<<16 {
				ports = append(ports, portMapping(aws.ToString(container.Name), m))
			}
		}
	}
	return answer{value: ports}, nil
}

func portMapping(container string, m types.PortMapping) lb.PortMapping {
	p := lb.PortMapping{
		Container:     container,
		Name:          aws.ToString(m.Name),
		ContainerPort: uint16(*m.ContainerPort),
		HostPort:      uint16(aws.ToInt32(m.HostPort)),
		Protocol:      lb.TCP,
		AppProtocol:   string(m.AppProtocol),
	}
	if m.Protocol == types.TransportProtocolUdp {
		p.Protocol = lb.UDP
	}
	return p
}

func (s *session) defaultNamespace(ctx context.Context, cluster string) (answer, error) {
	out, err := s.ecs.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{cluster}})
	if err != nil {
		return answer{}, err
	}
	if len(out.Clusters) == 0 {
		return answer{err: missing(actions[defaultNamespace], "cluster "+cluster)}, nil
	}
	ref := ""
	if d := out.Clusters[0].ServiceConnectDefaults; d != nil {
		ref = aws.ToString(d.Namespace)
	}
	return answer{value: ref}, nil
}

func (s *session) namespaceName(ctx context.Context, ref string) (answer, error) {
	out, err := s.namespaces.GetNamespace(ctx, &servicediscovery.GetNamespaceInput{Id: &ref})
	if err != nil {
		return answer{}, err
	}
	if out.Namespace == nil || aws.ToString(out.Namespace.Name) == "" {
		return answer{err: missing(actions[namespaceName], "name of namespace "+ref)}, nil
	}
	return answer{value: *out.Namespace.Name}, nil
}

// services asks for the tasks of a batch, which are of one cluster. A task
// that ECS leaves out is missing.
func (s *session) services(ctx context.Context, batch []key) (map[key]answer, error) {
	in := &ecs.DescribeTasksInput{Cluster: aws.String(cmp.Or(batch[0].cluster, "default"))}
	answers := make(map[key]answer, len(batch))
	for _, k := range batch {
		in.Tasks = append(in.Tasks, k.name)
		answers[k] = answer{err: missing(actions[taskService], "task "+k.name)}
	}
	out, err := s.ecs.DescribeTasks(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, t := range out.Tasks {
		k := key{kind: taskService, cluster: batch[0].cluster, name: aws.ToString(t.TaskArn)}
		if _, ok := answers[k]; ok {
			// Other groups are those of standalone tasks: family:<family>.
			name, ok := strings.CutPrefix(aws.ToString(t.Group), "service:")
			if !ok {
				name = ""
			}
			answers[k] = answer{value: name}
		}
	}
	return answers, nil
}
