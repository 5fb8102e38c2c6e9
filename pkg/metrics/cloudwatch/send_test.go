package cloudwatch

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

// Over an outage data wait, calls get rarer, and all arrives when it is over.
func TestOutage(t *testing.T) {
	for _, err := range []error{
		failure(0, "dial tcp: connection refused"), failure(503, "ServiceUnavailable"), failure(400, "Throttling"),
		failure(403, "AccessDenied"), failure(403, "ExpiredToken"),
	} {
		synctest.Test(t, func(t *testing.T) {
			var n uint64
			w := start(t, &world{}, only("NewConnectionCount"),
				func(p *Params) { p.Read = func() Snapshot { n++; return everything(n) } })
			w.api.answer = func(int, *cloudwatch.PutMetricDataInput) error { return err }
			w.minutes(10)
			calls := w.api.take()
			if len(calls) < 10 || len(calls) > 20 {
				t.Errorf("%s: %d calls in an outage of 10 minutes", err, len(calls))
			}
			for i := 1; i < len(calls); i++ {
				if gap := calls[i].at.Sub(calls[i-1].at); gap < firstWait/2 || gap > maxWait {
					t.Errorf("%s: %s between calls", err, gap)
				}
			}
			s := w.Stats()
			if s.Queued != 20 || s.LastError != err.Error() || s.Errors != uint64(len(calls)) ||
				s.Sent+s.Full+s.Refused != 0 || !s.LastSuccess.IsZero() {
				t.Errorf("%s: %+v", err, s)
			}
			w.api.answer = nil
			w.minutes(1)
			stamps := make(map[time.Time]bool)
			for _, c := range w.api.take() {
				for _, d := range c.in.MetricData {
					stamps[*d.Timestamp] = true
				}
			}
			if s := w.Stats(); len(stamps) != 11 || s.Queued != 0 || s.Sent != 22 || s.LastError != "" || s.LastSuccess.IsZero() {
				t.Errorf("%s: %d periods arrived, %+v", err, len(stamps), s)
			}
		})
	}
}

// The queue is bounded; the oldest go.
func TestQueueIsBounded(t *testing.T) {
	var q queue
	at := time.Unix(1e9, 0)
	for i := range 60 {
		data := make([]types.MetricDatum, 1000)
		stamp := at.Add(time.Duration(i) * time.Minute)
		for k := range data {
			data[k].Timestamp = &stamp
		}
		q.push(data)
	}
	if len(q.data) != maxQueued || q.full != 10_000 || !q.data[0].Timestamp.Equal(at.Add(10*time.Minute)) {
		t.Errorf("%d queued from %s, %d dropped", len(q.data), q.data[0].Timestamp, q.full)
	}
	q.expire(at.Add(maxAge + 20*time.Minute + time.Second))
	if q.old != 11_000 || !q.data[0].Timestamp.Equal(at.Add(21*time.Minute)) {
		t.Errorf("%d dropped for age, the oldest is of %s", q.old, q.data[0].Timestamp)
	}
	q.expire(at.Add(365 * 24 * time.Hour))
	if q.data != nil {
		t.Errorf("%d data of last year", len(q.data))
	}
}

// What CloudWatch refuses is dropped, and what comes after it is sent.
func TestRefused(t *testing.T) {
	for _, code := range []string{"InvalidParameterValueException", "InvalidParameterCombination", "ValidationError", "InvalidFormatFault"} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t, &world{})
			w.api.answer = func(n int, _ *cloudwatch.PutMetricDataInput) error {
				if n == 0 {
					return failure(400, code)
				}
				return nil
			}
			w.snapshot = everything(1)
			w.minutes(1)
			w.snapshot = everything(2)
			w.minutes(1)
			if s := w.Stats(); s.Calls != 2 || s.Errors != 1 || s.Refused != 28 || s.Sent != 28 || s.Queued != 0 {
				t.Errorf("%s: %+v", code, s)
			}
		})
	}
}

// A call is halved until it is small enough, and a datum that never is goes.
func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{})
		room := 10
		w.api.answer = func(_ int, in *cloudwatch.PutMetricDataInput) error {
			if len(in.MetricData) > room {
				return failure(413, "RequestEntityTooLarge")
			}
			return nil
		}
		w.snapshot = everything(1)
		w.minutes(1)
		var sizes []int
		for _, c := range w.api.take() {
			sizes = append(sizes, len(c.in.MetricData))
		}
		if s := w.Stats(); s.Sent != 28 || s.Refused != 0 || len(sizes) < 3 || !slices.Equal(sizes[:3], []int{28, 14, 7}) {
			t.Errorf("calls of %v, %+v", sizes, s)
		}
		room = 0
		w.snapshot = everything(2)
		w.minutes(1)
		if s := w.Stats(); s.Sent != 28 || s.Refused != 28 || s.Queued != 0 {
			t.Errorf("with no room at all: %+v", s)
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{})
		long := strings.Repeat("x", maxDimension)
		for i := range 1200 {
			w.snapshot.Served = append(w.snapshot.Served, Served{DiscoveryName: fmt.Sprint("s", i), Connections: 1})
		}
		for i := range 600 {
			w.snapshot.Called = append(w.snapshot.Called, Called{
				DiscoveryName: fmt.Sprint("s", i), Owner: lb.NewOwner(long, fmt.Sprint(i, long)[:maxDimension]), Bytes: 1,
			})
		}
		w.minutes(1)
		calls, sent := w.api.take(), 0
		for _, c := range calls {
			bytes := 0
			for i := range c.in.MetricData {
				bytes += size(&c.in.MetricData[i])
			}
			if n := len(c.in.MetricData); n > maxData || bytes > maxBytes {
				t.Errorf("a call of %d data and %d bytes", n, bytes)
			}
			sent += len(c.in.MetricData)
		}
		if sent != 2400 || len(calls) < 3 || len(calls[0].in.MetricData) != maxData || len(calls[1].in.MetricData) == maxData {
			t.Errorf("%d data in %d calls", sent, len(calls))
		}
	})
}

// At the end what was counted since the last period is sent, and an API that
// hangs does not hold up a stop.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{}, only("NewConnectionCount"))
		w.snapshot = everything(5)
		w.stop()
		expect(t, "sent at the end", data(w.api.take()),
			"NewConnectionCount{DiscoveryName=orders} 5 Count",
			"NewConnectionCount{DiscoveryName=orders,ServiceName=orders-v2,ClusterName=shop} 5 Count")
	})
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{}, func(p *Params) { p.API = hang{} })
		w.snapshot = everything(5)
		begin := time.Now()
		w.stop()
		if took := time.Since(begin); took != lastTime {
			t.Errorf("stopped after %s", took)
		}
	})
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		buckets []uint64
		sum     float64
		want    []float64
	}{
		{[]uint64{2, 0, 0, 0}, 1, []float64{0.5}},
		{[]uint64{1, 1, 1, 0}, 0.25 + 1.25 + 2.5, []float64{0.25, 1.25, 2.5}},
		{[]uint64{0, 0, 0, 2}, 10, []float64{5}},
		{[]uint64{0, 1, 0, 2}, 2002, []float64{2, 1000}}, // far above the last bound
		{[]uint64{0, 4, 0, 0}, 1, []float64{1}},          // a sum that belongs to other counts
		{[]uint64{0, 0, 0, 0}, 0, nil},
	} {
		values, counts := spread(bounds, test.buckets, test.sum)
		if !slices.Equal(values, test.want) || len(counts) != len(values) {
			t.Errorf("%v of %v ms: %v x %v, want %v", test.buckets, test.sum, counts, values, test.want)
		}
	}
}

// The average is kept whatever the buckets, and a datum has at most 150 values.
func TestManyBuckets(t *testing.T) {
	var many []float64
	for i := range 400 {
		many = append(many, float64(i+1)/1000)
	}
	sum := total{counts: make([]uint64, 401)}
	var n float64
	for i := range sum.counts {
		sum.counts[i] = uint64(i%7 + 1)
		n += float64(sum.counts[i])
		sum.micros += sum.counts[i] * uint64(1000*i+300)
	}
	var got, seen float64
	data := sum.data(series{metric: targetResponseTime, name: "a"}, many, time.Now())
	for _, d := range data {
		if len(d.Values) > maxValues || len(d.Counts) != len(d.Values) || d.Value != nil {
			t.Errorf("a datum of %d values and %d counts", len(d.Values), len(d.Counts))
		}
		for i, v := range d.Values {
			got, seen = got+v*d.Counts[i], seen+d.Counts[i]
		}
	}
	if want := float64(sum.micros) / 1000; len(data) != 3 || seen != n || math.Abs(got-want) > 1e-6*want {
		t.Errorf("%d data of %v observations and %v ms, want %v and %v", len(data), seen, got, n, want)
	}
}
