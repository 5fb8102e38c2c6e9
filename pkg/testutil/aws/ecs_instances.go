package aws

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Limits of attributes of container instances.
const (
	maxPutAttributes     = 10 // in one call
	maxInstanceAttribute = 10 // custom ones of one container instance
	maxAttributeLength   = 128
)

var (
	attributeName  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_./\\-]*$`)
	attributeValue = regexp.MustCompile(`^([a-zA-Z0-9_.\\/@: -]*)$`)
)

// DescribeContainerInstances describes up to 100 container instances of one
// cluster.
func (e ECS) DescribeContainerInstances(ctx context.Context, in *ecs.DescribeContainerInstancesInput, _ ...func(*ecs.Options)) (*ecs.DescribeContainerInstancesOutput, error) {
	return invoke(ctx, e.from, ecsCall("DescribeContainerInstances"), in, func(c *Cloud, account string, in *ecs.DescribeContainerInstancesInput) (*ecs.DescribeContainerInstancesOutput, error) {
		cluster, err := c.findCluster(account, in.Cluster)
		if err != nil {
			return nil, err
		}
		if len(in.ContainerInstances) == 0 || len(in.ContainerInstances) > 100 {
			return nil, invalidParameter("ContainerInstances must have between 1 and 100 entries")
		}
		instances, failures := pick(c.ecs.instances, account, *cluster.ClusterName, in.ContainerInstances)
		return &ecs.DescribeContainerInstancesOutput{ContainerInstances: instances, Failures: failures}, nil
	})
}

// PutAttributes adds attributes to container instances, or replaces them.
func (e ECS) PutAttributes(ctx context.Context, in *ecs.PutAttributesInput, _ ...func(*ecs.Options)) (*ecs.PutAttributesOutput, error) {
	return invoke(ctx, e.from, ecsCall("PutAttributes"), in, func(c *Cloud, account string, in *ecs.PutAttributesInput) (*ecs.PutAttributesOutput, error) {
		err := c.changeAttributes(account, in.Cluster, in.Attributes, func(all map[string]*string, a types.Attribute) {
			all[*a.Name] = a.Value
		})
		if err != nil {
			return nil, err
		}
		return &ecs.PutAttributesOutput{Attributes: in.Attributes}, nil
	})
}

// DeleteAttributes deletes attributes of container instances.
func (e ECS) DeleteAttributes(ctx context.Context, in *ecs.DeleteAttributesInput, _ ...func(*ecs.Options)) (*ecs.DeleteAttributesOutput, error) {
	return invoke(ctx, e.from, ecsCall("DeleteAttributes"), in, func(c *Cloud, account string, in *ecs.DeleteAttributesInput) (*ecs.DeleteAttributesOutput, error) {
		err := c.changeAttributes(account, in.Cluster, in.Attributes, func(all map[string]*string, a types.Attribute) {
			delete(all, *a.Name)
		})
		if err != nil {
			return nil, err
		}
		return &ecs.DeleteAttributesOutput{Attributes: in.Attributes}, nil
	})
}

// changeAttributes changes all of what is asked for, or nothing.
func (c *Cloud) changeAttributes(account string, ref *string, attributes []types.Attribute, change func(map[string]*string, types.Attribute)) error {
	cluster, err := c.findCluster(account, ref)
	if err != nil {
		return err
	}
	if len(attributes) == 0 || len(attributes) > maxPutAttributes {
		return invalidParameter("attributes must have between 1 and 10 entries")
	}
	changed := make(map[string]types.ContainerInstance)
	for _, a := range attributes {
		if err := checkAttribute(a); err != nil {
			return err
		}
		found, _ := pick(c.ecs.instances, account, *cluster.ClusterName, []string{*a.TargetId})
		if len(found) == 0 {
			return &types.TargetNotFoundException{Message: new("The specified target wasn't found.")}
		}
		i, ok := changed[*found[0].ContainerInstanceArn]
		if !ok {
			i = found[0]
		}
		all := make(map[string]*string)
		for _, own := range i.Attributes {
			all[*own.Name] = own.Value
		}
		change(all, a)
		i.Attributes = []types.Attribute{}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			i.Attributes = append(i.Attributes, types.Attribute{Name: new(name), Value: all[name]})
		}
		if custom(i.Attributes) > maxInstanceAttribute {
			return &types.AttributeLimitExceededException{Message: new("You can apply up to 10 custom attributes for each resource.")}
		}
		changed[*i.ContainerInstanceArn] = i
	}
	maps.Copy(c.ecs.instances, changed)
	return nil
}

func custom(attributes []types.Attribute) (n int) {
	for _, a := range attributes {
		if !strings.HasPrefix(*a.Name, "ecs.") && !strings.HasPrefix(*a.Name, "com.amazonaws.ecs.") {
			n++
		}
	}
	return n
}

func checkAttribute(a types.Attribute) error {
	switch {
	case a.Name == nil || len(*a.Name) > maxAttributeLength || !attributeName.MatchString(*a.Name):
		return invalidParameter("Invalid attribute name")
	case a.Value != nil && (len(*a.Value) > maxAttributeLength || !attributeValue.MatchString(*a.Value)):
		return invalidParameter("Invalid attribute value")
	case value(a.TargetId) == "":
		return invalidParameter("Target id is missing")
	case a.TargetType != "" && a.TargetType != types.TargetTypeContainerInstance:
		return invalidParameter("Invalid target type")
	case a.TargetType == "" && !strings.HasPrefix(*a.TargetId, "arn:"):
		return invalidParameter("Target type is missing where the target is no ARN")
	}
	return nil
}

// ListAttributes lists the container instances that have an attribute.
func (e ECS) ListAttributes(ctx context.Context, in *ecs.ListAttributesInput, _ ...func(*ecs.Options)) (*ecs.ListAttributesOutput, error) {
	return invoke(ctx, e.from, ecsCall("ListAttributes"), in, func(c *Cloud, account string, in *ecs.ListAttributesInput) (*ecs.ListAttributesOutput, error) {
		cluster, err := c.findCluster(account, in.Cluster)
		if err != nil {
			return nil, err
		}
		if in.TargetType != types.TargetTypeContainerInstance {
			return nil, invalidParameter("Invalid target type")
		}
		var all []types.Attribute
		for _, arn := range arns(c.ecs.instances, func(arn string, _ types.ContainerInstance) bool {
			return accountOf(arn) == account && clusterOf(arn) == *cluster.ClusterName
		}) {
			for _, a := range c.ecs.instances[arn].Attributes {
				if (in.AttributeName == nil || *a.Name == *in.AttributeName) && (in.AttributeValue == nil || value(a.Value) == *in.AttributeValue) {
					all = append(all, types.Attribute{Name: a.Name, Value: a.Value, TargetId: new(arn), TargetType: types.TargetTypeContainerInstance})
				}
			}
		}
		part, next, err := page(all, in.MaxResults, 100, 100, in.NextToken)
		if err != nil {
			return nil, invalidParameter(err.Error())
		}
		return &ecs.ListAttributesOutput{Attributes: part, NextToken: next}, nil
	})
}
