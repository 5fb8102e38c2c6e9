package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"connectd/pkg/lb"
	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.Main(m)) }

var (
	bounds = []float64{0.001, 0.002, 0.004}
	server = lb.NewOwner("orders-v2", "shop")
	caller = lb.NewOwner("web", "shop")
)

// everything is a snapshot in which all has been counted n times.
func everything(n uint64) Snapshot {
	return Snapshot{
		Served: []Served{{
			Key: "1", DiscoveryName: "orders", Owner: server,
			Active: n, Connections: n, Bytes: n, Requests: n, GRPCRequests: n, TLSErrors: n,
		}},
		Called: []Called{{
			Key: "1", DiscoveryName: "orders", Owner: caller, Targets: 2, Requests: 4 * n, Codes: [4]uint64{n, n, n, n},
			Bytes: n, Time: Histogram{Counts: []uint64{n, 0, n}, SumMicroseconds: 3500 * n}, TLSErrors: n,
		}},
	}
}

// recorder is an API that remembers its calls. answer, if set, says what
// becomes of the n-th call, from 0.
type recorder struct {
	mu     sync.Mutex
	calls  []call
	answer func(n int, in *cloudwatch.PutMetricDataInput) error
}

type call struct {
	at time.Time
	in *cloudwatch.PutMetricDataInput
}

func (r *recorder) PutMetricData(
	ctx context.Context, in *cloudwatch.PutMetricDataInput, _ ...func(*cloudwatch.Options),
) (*cloudwatch.PutMetricDataOutput, error) {
	r.mu.Lock()
	n, answer := len(r.calls), r.answer
	r.calls = append(r.calls, call{time.Now(), in})
	r.mu.Unlock()
	if answer != nil {
		if err := answer(n, in); err != nil {
			return nil, err
		}
	}
	return &cloudwatch.PutMetricDataOutput{}, ctx.Err()
}

// take returns the calls since it was last asked.
func (r *recorder) take() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.calls
	r.calls = nil
	return out
}

// hang answers when the caller has given up.
type hang struct{}

func (hang) PutMetricData(
	ctx context.Context, _ *cloudwatch.PutMetricDataInput, _ ...func(*cloudwatch.Options),
) (*cloudwatch.PutMetricDataOutput, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// world is a Publisher whose snapshot a test writes, under a fake clock.
type world struct {
	*Publisher
	api      *recorder
	reading  sync.Mutex // orders what a test has written before Read
	snapshot Snapshot
	stop     func()
}

// minutes lets n of them pass.
func (w *world) minutes(n int) {
	w.reading.Lock()
	w.reading.Unlock()
	w.api.mu.Lock()
	w.api.mu.Unlock()
	time.Sleep(time.Duration(n) * time.Minute)
	synctest.Wait()
}

// start runs a Publisher of minutes, which begins half of one after now and has
// taken its first reading.
func start(t *testing.T, w *world, change ...func(*Params)) *world {
	t.Helper()
	w.api = &recorder{}
	p := Params{
		API: w.api, Namespace: "ECS/Connect", Period: time.Minute, Bounds: bounds,
		Read: func() Snapshot {
			w.reading.Lock()
			defer w.reading.Unlock()
			return w.snapshot
		},
	}
	for _, f := range change {
		f(&p)
	}
	w.Publisher = New(p)
	w.random = func(n time.Duration) time.Duration { return n / 2 }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %s", err)
		}
	})
	t.Cleanup(w.stop)
	synctest.Wait()
	return w
}

// only selects some metrics.
func only(names ...string) func(*Params) {
	return func(p *Params) {
		s, err := Select(names...)
		if err != nil {
			panic(err)
		}
		p.Metrics = s
	}
}

// data lists what the calls carried, a line each.
func data(calls []call) []string {
	var out []string
	for _, c := range calls {
		for i := range c.in.MetricData {
			out = append(out, line(&c.in.MetricData[i]))
		}
	}
	return out
}

func line(d *types.MetricDatum) string {
	var dims, values []string
	for _, dim := range d.Dimensions {
		dims = append(dims, *dim.Name+"="+*dim.Value)
	}
	if d.Value != nil {
		values = append(values, fmt.Sprint(*d.Value))
	}
	for i, v := range d.Values {
		values = append(values, fmt.Sprintf("%gx%g", d.Counts[i], v))
	}
	return fmt.Sprintf("%s{%s} %s %s", *d.MetricName, strings.Join(dims, ","), strings.Join(values, " "), d.Unit)
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// failure is an error of the service as the SDK makes them; status 0 is one
// that never got there.
func failure(status int, code string) error {
	if status == 0 {
		return errors.New(code)
	}
	return &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code, Message: "because"},
	}
}
