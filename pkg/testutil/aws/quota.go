package aws

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"
	"github.com/aws/smithy-go"
)

// Names of the services in Call.Service.
const (
	ServiceCloudMap   = "servicediscovery"
	ServiceECS        = "ecs"
	ServiceCloudWatch = "cloudwatch"
	ServiceIMDS       = "imds"
	ServiceAgent      = "agent"
)

// Quota is a token bucket of an account in a region.
type Quota struct {
	Burst float64 // tokens that it holds
	Rate  float64 // tokens that come back in a second
}

// DefaultQuotas are the buckets by name. Those of ECS reads, of the Discover
// calls and of PutMetricData are documented; what AWS does not publish is a
// cautious guess.
func DefaultQuotas() map[string]Quota {
	return map[string]Quota{
		"DiscoverInstances":         {2000, 1000},
		"DiscoverInstancesRevision": {3000, 3000},
		"CloudMapRegister":          {50, 50}, // guess
		"CloudMapRead":              {50, 20}, // guess
		"CloudMapModify":            {10, 5},  // guess
		"ClusterRead":               {50, 20},
		"ClusterResourceRead":       {100, 20},
		"ClusterResourceModify":     {100, 40}, // guess
		"ServiceRead":               {100, 20},
		"ServiceRevisionRead":       {50, 20},
		"ListServicesByNamespace":   {10, 1},
		"TaskDefinitionRead":        {50, 20},
		"PutMetricData":             {500, 500},
	}
}

// bucketNames says from which bucket an action takes, where the name of the
// bucket is not the action's own.
var bucketNames = map[string]string{
	"servicediscovery.RegisterInstance":                 "CloudMapRegister",
	"servicediscovery.DeregisterInstance":               "CloudMapRegister",
	"servicediscovery.UpdateInstanceCustomHealthStatus": "CloudMapRegister",
	"ecs.DescribeClusters":                              "ClusterRead",
	"ecs.DescribeTasks":                                 "ClusterResourceRead",
	"ecs.ListTasks":                                     "ClusterResourceRead",
	"ecs.DescribeContainerInstances":                    "ClusterResourceRead",
	"ecs.ListAttributes":                                "ClusterResourceRead",
	"ecs.PutAttributes":                                 "ClusterResourceModify",
	"ecs.DeleteAttributes":                              "ClusterResourceModify",
	"ecs.DescribeServices":                              "ServiceRead",
	"ecs.DescribeServiceRevisions":                      "ServiceRevisionRead",
	"ecs.DescribeTaskDefinition":                        "TaskDefinitionRead",
}

// BucketOf names the bucket of DefaultQuotas that a call takes from.
func BucketOf(service, action string) string {
	if name := bucketNames[service+"."+action]; name != "" {
		return name
	}
	switch {
	case service != ServiceCloudMap || strings.HasPrefix(action, "Discover"):
		return action
	case strings.HasPrefix(action, "Get") || strings.HasPrefix(action, "List"):
		return "CloudMapRead"
	}
	return "CloudMapModify"
}

type bucketKey struct{ account, name string }

type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token for a call, or says that the account has none.
func (c *Cloud) take(call Call) error {
	name := BucketOf(call.Service, call.Action)
	quota, ok := c.quotas[name]
	if !ok {
		return nil
	}
	now := c.params.Now()
	key := bucketKey{call.Account, name}
	b := c.buckets[key]
	if b == nil {
		b = &bucket{tokens: quota.Burst, at: now}
		c.buckets[key] = b
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(quota.Burst, b.tokens+quota.Rate*d.Seconds())
		b.at = now
	}
	if b.tokens < 1 {
		return throttled(call)
	}
	b.tokens--
	return nil
}

// throttled is the refusal of a call for which there is no token.
func throttled(call Call) error {
	if call.Service == ServiceCloudMap && strings.HasPrefix(call.Action, "Discover") {
		return &types.RequestLimitExceeded{Message: new("Rate exceeded")}
	}
	code := "ThrottlingException"
	if call.Service == ServiceCloudWatch {
		code = "Throttling"
	}
	return &smithy.GenericAPIError{Code: code, Message: "Rate exceeded"}
}
