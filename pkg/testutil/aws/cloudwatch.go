package aws

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"
)

// Limits of PutMetricData.
const (
	maxMetrics       = 1000 // in one call
	maxValues        = 150  // of one metric
	maxDimensions    = 30
	maxMetricName    = 255
	maxKeptMetrics   = 100_000 // calls that Metrics remembers
	oldestMetric     = 14 * 24 * time.Hour
	newestMetric     = 2 * time.Hour
	maxDimensionName = 255
	maxDimension     = 1024
)

// CloudWatch has the methods of cloudwatch.Client.
type CloudWatch struct{ from origin }

// Metrics is what one call of PutMetricData brought.
type Metrics struct {
	At        time.Time
	Account   string
	Namespace string
	Data      []types.MetricDatum
}

// Metrics returns what CloudWatch was given, oldest first.
func (c *Cloud) Metrics() []Metrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.data)
}

// PutMetricData keeps metrics, all of a call or none.
func (w CloudWatch) PutMetricData(ctx context.Context, in *cloudwatch.PutMetricDataInput, _ ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error) {
	return invoke(ctx, w.from, Call{Service: ServiceCloudWatch, Action: "PutMetricData"}, in, func(c *Cloud, account string, in *cloudwatch.PutMetricDataInput) (*cloudwatch.PutMetricDataOutput, error) {
		if value(in.Namespace) == "" {
			return nil, &types.MissingRequiredParameterException{Message: new("The parameter Namespace is required."), ErrorCodeOverride: new("MissingParameter")}
		}
		if len(*in.Namespace) > 255 || strings.HasPrefix(*in.Namespace, "AWS/") || strings.HasPrefix(*in.Namespace, ":") {
			return nil, invalidMetric("The value %s for parameter Namespace is invalid.", *in.Namespace)
		}
		data := slices.Clone(in.MetricData)
		for _, entity := range in.EntityMetricData {
			data = append(data, entity.MetricData...)
		}
		if len(data) == 0 {
			return nil, &types.MissingRequiredParameterException{Message: new("The parameter MetricData is required."), ErrorCodeOverride: new("MissingParameter")}
		}
		if len(data) > maxMetrics {
			return nil, &smithy.GenericAPIError{Code: "ValidationError", Message: "The collection MetricData must not have a size greater than 1000."}
		}
		for i, d := range data {
			if err := checkDatum(d, c.params.Now()); err != nil {
				return nil, err
			}
			if d.Timestamp == nil {
				data[i].Timestamp = new(c.params.Now())
			}
		}
		c.data = append(c.data, Metrics{At: c.params.Now(), Account: account, Namespace: *in.Namespace, Data: data})
		c.data = c.data[max(0, len(c.data)-maxKeptMetrics):]
		return &cloudwatch.PutMetricDataOutput{}, nil
	})
}

func invalidMetric(format string, args ...any) error {
	return &types.InvalidParameterValueException{Message: new(fmt.Sprintf(format, args...)), ErrorCodeOverride: new("InvalidParameterValue")}
}

// checkDatum refuses what CloudWatch refuses of one metric.
func checkDatum(d types.MetricDatum, now time.Time) error {
	name := value(d.MetricName)
	switch {
	case name == "" || len(name) > maxMetricName:
		return invalidMetric("The parameter MetricName must have between 1 and 255 characters.")
	case len(d.Dimensions) > maxDimensions:
		return invalidMetric("The collection Dimensions must not have a size greater than 30.")
	case d.Unit != "" && !slices.Contains(d.Unit.Values(), d.Unit):
		return invalidMetric("The value %s for parameter Unit is invalid.", d.Unit)
	case d.Timestamp != nil && (d.Timestamp.Before(now.Add(-oldestMetric)) || d.Timestamp.After(now.Add(newestMetric))):
		return invalidMetric("The parameter Timestamp of %s is too old or too new.", name)
	case d.StorageResolution != nil && *d.StorageResolution != 1 && *d.StorageResolution != 60:
		return invalidMetric("The parameter StorageResolution must be 1 or 60.")
	}
	for _, dim := range d.Dimensions {
		if n, v := value(dim.Name), value(dim.Value); n == "" || len(n) > maxDimensionName || strings.HasPrefix(n, ":") || v == "" || len(v) > maxDimension {
			return invalidMetric("The dimension %q of %s is invalid.", n, name)
		}
	}
	return checkNumbers(d)
}

// checkNumbers wants one way of giving values, and values that CloudWatch can
// hold.
func checkNumbers(d types.MetricDatum) error {
	ways := 0
	var all []float64
	if d.Value != nil {
		ways++
		all = append(all, *d.Value)
	}
	if d.Values != nil {
		ways++
		all = append(all, d.Values...)
	}
	if s := d.StatisticValues; s != nil {
		ways++
		for _, v := range []*float64{s.Maximum, s.Minimum, s.SampleCount, s.Sum} {
			if v == nil {
				return invalidMetric("StatisticValues of %s are not complete.", value(d.MetricName))
			}
			all = append(all, *v)
		}
	}
	switch {
	case ways == 0:
		return &types.MissingRequiredParameterException{Message: new("At least one of Value, Values and StatisticValues is required."), ErrorCodeOverride: new("MissingParameter")}
	case ways > 1:
		return &types.InvalidParameterCombinationException{Message: new("Value, Values and StatisticValues are mutually exclusive."), ErrorCodeOverride: new("InvalidParameterCombination")}
	case d.Values != nil && (len(d.Values) == 0 || len(d.Values) > maxValues):
		return invalidMetric("The collection Values must have between 1 and 150 entries.")
	case d.Counts != nil && len(d.Counts) != len(d.Values):
		return invalidMetric("The collections Values and Counts must be of the same size.")
	}
	for _, v := range slices.Concat(all, d.Counts) {
		if math.IsNaN(v) || math.Abs(v) > math.Ldexp(1, 360) {
			return invalidMetric("The value %v of %s is invalid.", v, value(d.MetricName))
		}
	}
	return nil
}
