package aws

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

type cloudWatchAPI interface {
	PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error)
}

// TestPutMetricData: what arrives, over the SDK's protocol and packed by it
// when it is long, and in process.
func TestPutMetricData(t *testing.T) {
	for name, client := range map[string]func(*world) cloudWatchAPI{
		"http":    func(w *world) cloudWatchAPI { return w.cloudWatch(Caller{}) },
		"process": func(w *world) cloudWatchAPI { return w.As(Caller{}).CloudWatch },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			put := func(data ...types.MetricDatum) error {
				_, err := client(w).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: new("ECS/Connect"), MetricData: data})
				return err
			}
			at := w.clock.Now().Add(-time.Minute)
			one := types.MetricDatum{
				MetricName: new("TargetResponseTime"), Unit: types.StandardUnitMilliseconds, Timestamp: &at,
				Values: []float64{0.25, 3, 1e9}, Counts: []float64{1, 20, 300},
				Dimensions: []types.Dimension{{Name: new("TargetDiscoveryName"), Value: new("orders")}},
			}
			if err := put(one); err != nil {
				t.Fatal(err)
			}
			got := w.Metrics()[0]
			d := got.Data[0]
			if got.Namespace != "ECS/Connect" || *d.MetricName != "TargetResponseTime" || d.Unit != types.StandardUnitMilliseconds || !d.Timestamp.Equal(at) ||
				fmt.Sprint(d.Values, d.Counts) != "[0.25 3 1e+09] [1 20 300]" || *d.Dimensions[0].Value != "orders" {
				t.Errorf("got %+v", d)
			}
			count := func(n int) []types.MetricDatum {
				data := make([]types.MetricDatum, n)
				for i := range data {
					data[i] = types.MetricDatum{MetricName: new("RequestCount"), Value: new(float64(i))}
				}
				return data
			}
			if err := put(count(1000)...); err != nil {
				t.Errorf("1000 metrics: %v", err)
			}
			if got := w.Metrics()[1]; len(got.Data) != 1000 || *got.Data[999].Value != 999 {
				t.Errorf("of 1000 metrics %d came", len(got.Data))
			}
			wantCode(t, put(count(1001)...), "ValidationError")
			for code, spoil := range map[string]func(*types.MetricDatum){
				"InvalidParameterValue 151 values": func(d *types.MetricDatum) { d.Values, d.Counts = make([]float64, 151), make([]float64, 151) },
				"InvalidParameterValue counts":     func(d *types.MetricDatum) { d.Counts = d.Counts[1:] },
				"InvalidParameterValue large":      func(d *types.MetricDatum) { d.Values[0] = math.Ldexp(1, 361) },
				"InvalidParameterValue NaN":        func(d *types.MetricDatum) { d.Values[0] = math.NaN() },
				"InvalidParameterValue old":        func(d *types.MetricDatum) { d.Timestamp = new(at.Add(-15 * 24 * time.Hour)) },
				"InvalidParameterValue new":        func(d *types.MetricDatum) { d.Timestamp = new(at.Add(3 * time.Hour)) },
				"InvalidParameterValue unit":       func(d *types.MetricDatum) { d.Unit = "Requests" },
				"InvalidParameterValue dimension":  func(d *types.MetricDatum) { d.Dimensions[0].Value = new("") },
				"InvalidParameterValue dimensions": func(d *types.MetricDatum) {
					for i := range 30 {
						d.Dimensions = append(d.Dimensions, types.Dimension{Name: new(fmt.Sprint(i)), Value: new("v")})
					}
				},
				"MissingParameter no value":             func(d *types.MetricDatum) { d.Values, d.Counts = nil, nil },
				"InvalidParameterCombination two kinds": func(d *types.MetricDatum) { d.Value = new(1.0) },
			} {
				bad := one
				bad.Values, bad.Dimensions = append([]float64{}, one.Values...), append([]types.Dimension{}, one.Dimensions...)
				spoil(&bad)
				code, name, _ := strings.Cut(code, " ")
				t.Run(name, func(t *testing.T) { wantCode(t, put(bad), code) })
			}
			_, err := client(w).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: new("AWS/ECS"), MetricData: count(1)})
			wantCode(t, err, "InvalidParameterValue")
			if n := len(w.Metrics()); n != 2 {
				t.Errorf("%d calls are kept, refused ones too", n)
			}
		})
	}
}

// TestTooLarge: a body of more than 1 MB is refused, however small it is packed.
func TestTooLarge(t *testing.T) {
	w := newWorld(t, nil)
	data := make([]types.MetricDatum, 1000)
	for i := range data {
		data[i] = types.MetricDatum{MetricName: new("m"), Value: new(1.0), Dimensions: []types.Dimension{{Name: new("d"), Value: new(strings.Repeat("v", 1024))}, {Name: new("e"), Value: new(strings.Repeat("v", 100))}}}
	}
	_, err := w.cloudWatch(Caller{}).PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: new("n"), MetricData: data})
	if status, ok := errors.AsType[*smithyhttp.ResponseError](err); !ok || status.HTTPStatusCode() != 413 {
		t.Errorf("got %v, want status 413", err)
	}
}
