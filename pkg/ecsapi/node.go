package ecsapi

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The attributes of a container instance that connectd knows.
const (
	AttributeReady = "connectd.ready" // set by the node: services may be placed by it
	AttributeOff   = "connectd.off"   // set by people: the node puts everything back
)

const (
	actionInstances = "ecs:DescribeContainerInstances"
	actionPut       = "ecs:PutAttributes"
	actionDelete    = "ecs:DeleteAttributes"
)

// PutReady sets the attribute connectd.ready of the node to "true", or deletes
// it. It is not tried again.
func (c *Cache) PutReady(ctx context.Context, cluster, containerInstanceARN string, ready bool) error {
	attributes := []types.Attribute{{Name: aws.String(AttributeReady), TargetId: &containerInstanceARN}}
	if !ready {
		return c.call(ctx, actionDelete, func(ctx context.Context, s *session) error {
			_, err := s.ecs.DeleteAttributes(ctx, &ecs.DeleteAttributesInput{Cluster: &cluster, Attributes: attributes})
			return err
		})
	}
	attributes[0].Value = aws.String("true")
	return c.call(ctx, actionPut, func(ctx context.Context, s *session) error {
		_, err := s.ecs.PutAttributes(ctx, &ecs.PutAttributesInput{Cluster: &cluster, Attributes: attributes})
		return err
	})
}

// Instance is what people and ECS say of the node.
type Instance struct {
	Off      bool // somebody has set the attribute connectd.off, to anything but "false"
	Draining bool // ECS moves its tasks elsewhere
}

// Instance asks what is said of the node.
func (c *Cache) Instance(ctx context.Context, cluster, containerInstanceARN string) (is Instance, err error) {
	err = c.call(ctx, actionInstances, func(ctx context.Context, s *session) error {
		out, err := s.ecs.DescribeContainerInstances(ctx, &ecs.DescribeContainerInstancesInput{
			Cluster: &cluster, ContainerInstances: []string{containerInstanceARN},
		})
		if err != nil {
			return err
		}
		if len(out.ContainerInstances) == 0 {
			return missing(actionInstances, "container instance "+containerInstanceARN)
		}
		is = Instance{Draining: aws.ToString(out.ContainerInstances[0].Status) == "DRAINING"}
		for _, a := range out.ContainerInstances[0].Attributes {
			if aws.ToString(a.Name) == AttributeOff && aws.ToString(a.Value) != "false" {
				is.Off = true
			}
		}
		return nil
	})
	return is, err
}
