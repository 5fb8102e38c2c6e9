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

// NodeOff says whether somebody has set the attribute connectd.off of the
// node, to anything but "false".
func (c *Cache) NodeOff(ctx context.Context, cluster, containerInstanceARN string) (off bool, err error) {
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
		for _, a := range out.ContainerInstances[0].Attributes {
			if aws.ToString(a.Name) == AttributeOff && aws.ToString(a.Value) != "false" {
				off = true
			}
		}
		return nil
	})
	return off, err
}
