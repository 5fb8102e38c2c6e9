package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Dial returns the API of a region, by the credentials and the endpoint that
// the SDK finds in its environment. Region "" is the environment's, else this
// instance's. Nothing is read before the first call, so that a start does not
// wait for AWS.
func Dial(region string) API { return &client{region: region} }

type client struct {
	region string
	mu     sync.Mutex
	api    *cloudwatch.Client // nil: no configuration yet
}

func (c *client) PutMetricData(
	ctx context.Context, in *cloudwatch.PutMetricDataInput, opts ...func(*cloudwatch.Options),
) (*cloudwatch.PutMetricDataOutput, error) {
	api, err := c.configured(ctx)
	if err != nil {
		return nil, fmt.Errorf("configure CloudWatch: %w", err)
	}
	return api.PutMetricData(ctx, in, opts...)
}

func (c *client) configured(ctx context.Context) (*cloudwatch.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.api != nil {
		return c.api, nil
	}
	options := []func(*config.LoadOptions) error{config.WithEC2IMDSRegion()}
	if c.region != "" {
		options = append(options, config.WithRegion(c.region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, errors.New("no region, neither in the environment nor of the instance")
	}
	// Tries are the publisher's, which goes on collecting between them.
	c.api = cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) { o.Retryer = aws.NopRetryer{} })
	return c.api, nil
}

// verdict is what becomes of data whose call failed.
type verdict uint8

const (
	later    verdict = iota // the same data may be taken another time
	tooLarge                // fewer of them may be
	never
)

// refusals are codes that say that the data are wrong. They come with and
// without Exception or Fault behind them, by protocol.
var refusals = []string{
	"InvalidParameterValue", "InvalidParameterCombination", "MissingParameter", "MissingRequiredParameter",
	"InvalidFormat", "Validation", "ValidationError",
}

// judge reads an error. Missing permissions and credentials can be given, so
// data wait for them.
func judge(err error) verdict {
	if response := (*smithyhttp.ResponseError)(nil); errors.As(err, &response) &&
		response.HTTPStatusCode() == http.StatusRequestEntityTooLarge {
		return tooLarge
	}
	if api := smithy.APIError(nil); errors.As(err, &api) {
		code := strings.TrimSuffix(strings.TrimSuffix(api.ErrorCode(), "Exception"), "Fault")
		switch {
		case code == "RequestEntityTooLarge":
			return tooLarge
		case slices.Contains(refusals, code):
			return never
		}
	}
	return later
}
