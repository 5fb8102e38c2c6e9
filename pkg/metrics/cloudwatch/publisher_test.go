package cloudwatch

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectd/pkg/lb"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
)

// Names, units and sets of dimensions are those of Service Connect.
func TestAsServiceConnect(t *testing.T) {
	text, err := os.ReadFile("testdata/service-connect.md")
	if err != nil {
		t.Fatal(err)
	}
	sets := make(map[string][]string)
	for _, m := range regexp.MustCompile("(?m)^([AB]): `([^`]+)`$").FindAllStringSubmatch(string(text), -1) {
		sets[m[1]] = append(sets[m[1]], m[2])
	}
	var want []string
	rows := regexp.MustCompile(`(?m)^\| (\w+) \| (\w+) \| ([AB]) \|`).FindAllStringSubmatch(string(text), -1)
	for _, m := range rows {
		for _, set := range sets[m[3]] {
			want = append(want, m[1]+" "+m[2]+" "+set)
		}
	}
	if len(rows) != 14 || len(want) != 28 {
		t.Fatalf("read %d rows and %d pairs of the table", len(rows), len(want))
	}
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{})
		w.snapshot = everything(1)
		w.minutes(1)
		var got []string
		for _, c := range w.api.take() {
			if *c.in.Namespace != "ECS/Connect" {
				t.Errorf("namespace %q", *c.in.Namespace)
			}
			for _, d := range c.in.MetricData {
				var dims []string
				for _, dim := range d.Dimensions {
					dims = append(dims, *dim.Name)
				}
				got = append(got, fmt.Sprintf("%s %s %s", *d.MetricName, d.Unit, strings.Join(dims, ",")))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		expect(t, "sent", got, want...)
	})
}

func TestValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{snapshot: everything(10)}, only("ActiveConnectionCount", "NewConnectionCount",
			"HTTPCode_Target_5XX_Count", "RequestCountPerTarget", "TargetResponseTime"))
		w.snapshot = everything(13)
		// A second ECS service behind the name, and a caller without one.
		w.snapshot.Served = append(w.snapshot.Served,
			Served{Key: "2", DiscoveryName: "orders", Owner: caller, Active: 2, Connections: 5})
		w.snapshot.Called = append(w.snapshot.Called,
			Called{Key: "2", DiscoveryName: "orders", Requests: 3, Targets: 3, Codes: [4]uint64{3: 2}})
		w.minutes(1)
		expect(t, "first period", data(w.api.take()),
			"ActiveConnectionCount{DiscoveryName=orders} 15 Count",
			"ActiveConnectionCount{DiscoveryName=orders,ServiceName=orders-v2,ClusterName=shop} 13 Count",
			"ActiveConnectionCount{DiscoveryName=orders,ServiceName=web,ClusterName=shop} 2 Count",
			"NewConnectionCount{DiscoveryName=orders} 8 Count",
			"NewConnectionCount{DiscoveryName=orders,ServiceName=orders-v2,ClusterName=shop} 3 Count",
			"NewConnectionCount{DiscoveryName=orders,ServiceName=web,ClusterName=shop} 5 Count",
			"HTTPCode_Target_5XX_Count{TargetDiscoveryName=orders} 5 Count",
			"HTTPCode_Target_5XX_Count{TargetDiscoveryName=orders,ServiceName=web,ClusterName=shop} 3 Count",
			"RequestCountPerTarget{TargetDiscoveryName=orders} 5 Count",
			"RequestCountPerTarget{TargetDiscoveryName=orders,ServiceName=web,ClusterName=shop} 6 Count",
			"TargetResponseTime{TargetDiscoveryName=orders} 3x0.5 3x3 Milliseconds",
			"TargetResponseTime{TargetDiscoveryName=orders,ServiceName=web,ClusterName=shop} 3x0.5 3x3 Milliseconds",
		)
		// What stands still is not sent; a gauge that fell to 0 is, once.
		w.snapshot.Served[0].Active, w.snapshot.Served[1].Active = 0, 0
		w.minutes(1)
		expect(t, "second period", data(w.api.take()),
			"ActiveConnectionCount{DiscoveryName=orders} 0 Count",
			"ActiveConnectionCount{DiscoveryName=orders,ServiceName=orders-v2,ClusterName=shop} 0 Count",
			"ActiveConnectionCount{DiscoveryName=orders,ServiceName=web,ClusterName=shop} 0 Count",
		)
		w.minutes(1)
		if calls := w.api.take(); len(calls) != 0 {
			t.Errorf("sent of a period in which nothing happened: %s", data(calls))
		}
	})
}

// TestOwnerBecomesKnown: what a row has counted before its owner was known is
// not counted again, and what comes after is the owner's.
func TestOwnerBecomesKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		row := Served{Key: "1", DiscoveryName: "orders", Requests: 100}
		w := start(t, &world{snapshot: Snapshot{Served: []Served{row}}}, only("RequestCount"))
		row.Requests = 107
		row.Owner = server
		w.snapshot = Snapshot{Served: []Served{row}}
		w.minutes(1)
		expect(t, "sent", data(w.api.take()),
			"RequestCount{DiscoveryName=orders} 7 Count",
			"RequestCount{DiscoveryName=orders,ServiceName=orders-v2,ClusterName=shop} 7 Count")
	})
}

// Stamps are a period apart even if calls take their time.
func TestPeriods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var n uint64
		w := start(t, &world{}, func(p *Params) { p.Read = func() Snapshot { n++; return everything(n) } })
		w.api.answer = func(int, *cloudwatch.PutMetricDataInput) error { time.Sleep(9 * time.Second); return nil }
		w.minutes(3)
		calls := w.api.take()
		if len(calls) != 3 {
			t.Fatalf("%d calls in three periods", len(calls))
		}
		for i, c := range calls {
			want := begin.Add(time.Minute/2 + time.Duration(i)*time.Minute)
			if !c.at.Equal(want) || !c.in.MetricData[0].Timestamp.Equal(want) {
				t.Errorf("call %d at %s with stamp %s, want %s", i, c.at, c.in.MetricData[0].Timestamp, want)
			}
		}
	})
}

// The nodes of a fleet do not call at once, but each within its first period.
func TestBeginsAtRandom(t *testing.T) {
	begins := make(map[time.Duration]bool)
	for range 8 {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			var n uint64
			api := &recorder{}
			p := New(Params{API: api, Period: time.Minute, Bounds: bounds, Read: func() Snapshot { n++; return everything(n) }})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- p.Run(ctx) }()
			time.Sleep(time.Minute)
			synctest.Wait()
			calls := api.take()
			cancel()
			<-ended
			if len(calls) == 0 {
				t.Fatal("no call in the first period")
			}
			begins[calls[0].at.Sub(begin)] = true
		})
	}
	if len(begins) < 2 {
		t.Errorf("8 publishers begin at %v", begins)
	}
}

func TestCountersBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{}, only("NewConnectionCount", "ProcessedBytes"))
		row := func(key string, connections, bytes uint64) Served {
			return Served{Key: key, DiscoveryName: "a", Connections: connections, Bytes: bytes}
		}
		for i, step := range []struct {
			rows               []Served
			connections, bytes string // "": nothing is sent
		}{
			{[]Served{row("1", 10, 1000)}, "10", "1000"},
			{[]Served{row("1", 11, 900)}, "1", ""}, // a sample fell
			{[]Served{row("1", 11, 1100)}, "", "100"},
			{[]Served{row("1", 3, 50)}, "3", "50"}, // the counter began anew
			{[]Served{row("1", 3, 50), row("2", 7, 0)}, "7", ""},
			{[]Served{row("2", 8, 0)}, "1", ""},
			{[]Served{row("1", 4, 50), row("2", 8, 0)}, "1", ""}, // gone for a moment
		} {
			w.snapshot = Snapshot{Served: step.rows}
			w.minutes(1)
			var want []string
			if step.connections != "" {
				want = append(want, "NewConnectionCount{DiscoveryName=a} "+step.connections+" Count")
			}
			if step.bytes != "" {
				want = append(want, "ProcessedBytes{DiscoveryName=a} "+step.bytes+" Bytes")
			}
			expect(t, fmt.Sprintf("step %d", i), data(w.api.take()), want...)
		}
		// What has not been seen for an hour is forgotten.
		w.snapshot = Snapshot{}
		w.minutes(int(forgetAfter/time.Minute) + 2)
		if n := len(w.ledger.marks); n != 0 {
			t.Errorf("%d rows are remembered", n)
		}
	})
}

// A name that would spoil a whole call costs its own row alone.
func TestInvalidNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &world{})
		for _, name := range []string{"ok", "", " ", ":x", "ü", "a\n", strings.Repeat("x", maxDimension+1)} {
			w.snapshot.Served = append(w.snapshot.Served, Served{DiscoveryName: name, Connections: 1})
		}
		w.snapshot.Called = []Called{{DiscoveryName: "ok", Owner: lb.NewOwner("ü", "c"), Requests: 1, Targets: 1}}
		w.minutes(1)
		expect(t, "sent", data(w.api.take()), "NewConnectionCount{DiscoveryName=ok} 1 Count")
		if s := w.Stats(); s.Invalid != 7 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSelect(t *testing.T) {
	for _, test := range []struct {
		names []string
		want  int
		err   string
	}{
		{nil, 14, ""},
		{[]string{"all"}, 14, ""},
		{[]string{"RequestCount", "TargetResponseTime"}, 2, ""},
		{[]string{"RequestCount", "requestCount"}, 0, `unknown metric "requestCount"`},
		{[]string{"RequestCount", "all"}, 0, `unknown metric "all"`},
	} {
		s, err := Select(test.names...)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: error %v, want %s", test.names, err, test.err)
			}
			continue
		}
		n := 0
		for m := range numMetrics {
			if s.has(m) {
				n++
			}
		}
		if err != nil || n != test.want {
			t.Errorf("%v: %d metrics, error %v", test.names, n, err)
		}
	}
}

func TestCheckNamespace(t *testing.T) {
	for name, ok := range map[string]bool{
		"ECS/Connect": true, "a b": true, "": false, "AWS/ECS": false, ":a": false, "ü": false,
		strings.Repeat("x", 255): true, strings.Repeat("x", 256): false,
	} {
		if err := CheckNamespace(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
