package metrics

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata; read the difference")

// fullWorld has something of everything.
func fullWorld() Sources {
	w := newWorld(3, 2)
	w.traffic(1, 1, 10)
	w.traffic(1, 2, 5)
	w.traffic(2, 3, 1)
	w.desired.Services[1].Panic = true
	w.desired.Services[1].Endpoints[0].State = lb.StateUnhealthy
	w.desired.Tasks = []*plan.Task{{}}
	w.desired.Problems = []string{"no room for prod/big"}
	w.kernel.Outcomes = []Counter{{"translated", 15}, {"out_of_scope", 2}}
	w.kernel.EventsLost = 3
	w.kernel.Maps = []MapFill{{Name: "connections", Entries: 16, MaxEntries: 64, Bytes: 4096}}
	counts := make([]uint64, durationBuckets)
	counts[2], counts[13] = 9, 1
	w.probes = map[lb.ServiceName]ProbeStats{w.desired.Services[1].Name: {
		Results: []uint64{9, 0, 1}, Duration: Histogram{Counts: counts, SumMicroseconds: 20045000},
	}}
	w.ejections = map[lb.ServiceName]uint64{w.desired.Services[1].Name: 2}
	src := w.sources()
	hist := make([]uint64, len(bounds)+1)
	hist[5], hist[19] = 6, 2
	requests := HTTPStats{
		Classes: []uint64{1, 0, 5, 0, 0, 2}, GRPC: []uint64{4, 1}, Duration: Histogram{Counts: hist, SumMicroseconds: 9000},
		Retries: []uint64{3, 1, 2}, Timeouts: 1, Received: 70, Sent: 700, LeftOut: 1,
	}
	src.HTTP = HTTPSource{
		RetryOutcomes: []string{"success", "failure", "", "no_budget"}, GRPCStatuses: []string{"0", "14", "other"}, Bounds: bounds,
		Read: func() HTTP {
			return HTTP{
				Forwarded: Requests{
					Services: map[lb.ServiceID]HTTPStats{1: requests}, Endpoints: map[lb.EndpointID]HTTPStats{1: requests},
				},
				Refusals: []Counter{{"no_endpoint", 2}}, Clients: 3, Upstream: map[string]uint64{"idle": 2, "busy": 1},
				LogLines: 8, LogDrops: 1,
			}
		},
	}
	src.Terminated = func() []Counter { return []Counter{{"probe", 4}, {"drain", 1}} }
	src.DNS = func() []Counter { return []Counter{{"answered", 100}, {"formerr", 1}} }
	src.Events = func() []Counter { return []Counter{{"refused", 7}, {"joined", 1}} }
	src.Off = func() bool { return true }
	src.TaskProblems = func() []Counter { return []Counter{{"tls", 2}, {"loopback_only", 0}} }
	src.DockerUp = func() bool { return true }
	src.Reconcile = func() Reconcile {
		return Reconcile{
			Revision: 1, Lag: 1500 * time.Millisecond, Passes: Histogram{Counts: counts, SumMicroseconds: 5000},
			Errors: 1, LastSuccess: at, Services: 3, Endpoints: 6, Tasks: 1,
		}
	}
	src.Catalog = func() Catalog {
		return Catalog{Files: 2, Failing: 1, Reload: Reload{Last: at.Add(time.Minute), LastSuccess: at}}
	}
	src.Config = func() Reload { return Reload{Last: at, LastSuccess: at, OK: true} }
	src.CloudWatch = func() CloudWatch {
		return CloudWatch{
			Calls: 7, Errors: 2, Sent: 900, Dropped: []Counter{{"full", 3}, {"old", 0}}, Queued: 12, LastSuccess: at,
		}
	}
	src.Instance = func() Instance {
		return Instance{Notices: map[string]bool{"spot": true, "ecs": false}, Errors: 4, LastSuccess: at}
	}
	src.Registry = func() Registry {
		return Registry{
			Tokens: 3.5, AsOf: map[string]time.Time{"prod": at}, Demanded: 4, Ignored: []Counter{{"junk", 1}},
			Offered: 3, Registered: 2, Seen: 1, Cleaned: 5, Stale: 6,
		}
	}
	src.AWS = func() []Call { return []Call{{"servicediscovery:DiscoverInstances", "success", 9}} }
	src.Heartbeat = func() time.Time { return at.Add(1500 * time.Millisecond) }
	src.Build = Build{Version: "1.2.3", Revision: "abcdef0"}
	return src
}

func get(t *testing.T, h http.Handler, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Result()
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGolden(t *testing.T) {
	res := get(t, New(fullWorld()).Handler(), "/metrics")
	if res.StatusCode != 200 {
		t.Fatalf("status %d: %s", res.StatusCode, body(t, res.Body))
	}
	var own []string
	for line := range strings.Lines(body(t, res.Body)) {
		if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "connectd_") {
			own = append(own, line)
		}
	}
	got := strings.Join(own, "")
	got = regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(got, `goversion="go1"`)
	const path = "testdata/metrics.txt"
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("output differs from %s; run with -rewrite and read the difference\n%s", path, got)
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(fullWorld()).registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Every family is shown by fullWorld, so that the golden file and the linter
// see all of them.
func TestEveryFamilyShown(t *testing.T) {
	all, err := New(fullWorld()).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := make(map[string]bool)
	for _, f := range all {
		shown[f.GetName()] = true
	}
	for _, f := range newFamilies().all {
		if !shown[f.name] {
			t.Errorf("%s is not in the scrape", f.name)
		}
	}
}

func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(connectd_[a-z_]+)` \\| (gauge|counter|histogram) \\|")
	inDoc := make(map[string]string)
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		if inDoc[m[1]] != "" {
			t.Errorf("%s has two rows in the doc", m[1])
		}
		inDoc[m[1]] = m[2]
	}
	var names []string
	for _, f := range newFamilies().all {
		names = append(names, f.name)
		if got, want := inDoc[f.name], [...]string{"gauge", "counter", "histogram"}[f.kind]; got != want {
			t.Errorf("%s is a %s and is %q in the doc", f.name, want, got)
		}
		delete(inDoc, f.name)
	}
	for name := range inDoc {
		t.Errorf("%s is in the doc only", name)
	}
	for _, name := range regexp.MustCompile(`connectd_[a-z_]+`).FindAllString(string(doc), -1) {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
		if !slices.Contains(names, name) {
			t.Errorf("the doc names %s, which does not exist", name)
		}
	}
}

func TestGzip(t *testing.T) {
	e := New(fullWorld())
	res := get(t, e.Handler(), "/metrics", "Accept-Encoding", "gzip")
	if got := res.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("Content-Encoding %q", got)
	}
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if b := body(t, z); !strings.Contains(b, "connectd_build_info") {
		t.Errorf("body: %s", b)
	}
}

func TestLiveAndReady(t *testing.T) {
	var live error
	var missing []string
	src := fullWorld()
	src.Live = func() error { return live }
	src.Ready = func() []string { return missing }
	h := New(src).Handler()
	for _, step := range []struct {
		path    string
		live    error
		missing []string
		status  int
		body    string
	}{
		{"/livez", nil, []string{"catalog"}, 200, "ok\n"},
		{"/livez", errors.New("main loop stands still for 12s"), nil, 503, "main loop stands still for 12s\n"},
		{"/readyz", nil, nil, 200, "ok\n"},
		{"/readyz", errors.New("x"), nil, 200, "ok\n"},
		{"/readyz", nil, []string{"catalog", "dns"}, 503, "catalog\ndns\n"},
		{"/nothing", nil, nil, 404, "404 page not found\n"},
	} {
		live, missing = step.live, step.missing
		res := get(t, h, step.path)
		if got := body(t, res.Body); res.StatusCode != step.status || got != step.body {
			t.Errorf("%s with %v, %v: %d %q, want %d %q", step.path, live, missing, res.StatusCode, got, step.status, step.body)
		}
	}
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest("POST", "/metrics", nil))
	if r.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.Code)
	}
}

// A kernel read that hangs costs at most maxScrapes requests, and neither
// /livez nor /readyz.
func TestScrapeLimit(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	src := fullWorld()
	read := src.Kernel.Read
	src.Kernel.Read = func() (Kernel, error) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return read()
	}
	h := New(src).Handler()
	statuses := make(chan int, maxScrapes+1)
	for range maxScrapes + 1 {
		go func() { statuses <- get(t, h, "/metrics").StatusCode }()
	}
	<-entered
	if s := <-statuses; s != http.StatusServiceUnavailable {
		t.Errorf("one scrape too many: %d", s)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if s := get(t, h, path).StatusCode; s != 200 {
			t.Errorf("%s during a slow scrape: %d", path, s)
		}
	}
	close(release)
	for range maxScrapes {
		if s := <-statuses; s != 200 {
			t.Errorf("a scrape within the limit: %d", s)
		}
	}
}

// A scrape that hangs is answered when Prometheus has given up.
func TestScrapeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		src := fullWorld()
		src.Kernel.Read = func() (Kernel, error) { <-release; return Kernel{}, nil }
		begin := time.Now()
		res := get(t, New(src).Handler(), "/metrics")
		if took := time.Since(begin); res.StatusCode != http.StatusServiceUnavailable || took != scrapeTimeout {
			t.Errorf("status %d after %s", res.StatusCode, took)
		}
		close(release)
	})
}

// A source that panics costs the scrape's own metrics, not the daemon.
func TestSourcePanics(t *testing.T) {
	src := fullWorld()
	src.DNS = func() []Counter { panic("boom") }
	e := New(src)
	res := get(t, e.Handler(), "/metrics")
	b := body(t, res.Body)
	if res.StatusCode != 200 || !strings.Contains(b, "go_goroutines") {
		t.Errorf("%d %.200s", res.StatusCode, b)
	}
	get(t, e.Handler(), "/metrics") // the lock was let go
}

// listener tells when it is closed.
type listener struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	entered, release := make(chan struct{}), make(chan struct{})
	src := fullWorld()
	src.Ready = func() []string { close(entered); <-release; return nil }
	e := New(src)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &listener{Listener: inner, closed: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx, ln) }()

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	url := "http://" + ln.Addr().String()
	res, err := client.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if b := body(t, res.Body); res.StatusCode != 200 || !strings.Contains(b, "connectd_build_info") {
		t.Errorf("%d %.200s", res.StatusCode, b)
	}
	res.Body.Close()

	// A request in flight is answered although the context ends.
	answer := make(chan error, 1)
	go func() {
		res, err := client.Get(url + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		answer <- err
	}()
	<-entered
	cancel()
	<-ln.closed
	select {
	case err := <-ended:
		t.Fatalf("serve returned with a request in flight: %v", err)
	case <-time.After(20 * time.Millisecond): // wrong code returns at once
	}
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("request in flight: %s", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %s", err)
	}
}

func TestServeErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := New(fullWorld())
	if _, err := Listen(t.Context(), ln.Addr().String()); err == nil || !strings.HasPrefix(err.Error(), "listen for metrics: ") {
		t.Errorf("address taken: %v", err)
	}
	ln.Close()
	if err := e.Serve(t.Context(), ln); err == nil {
		t.Error("a listener that is closed: no error")
	}
}

func BenchmarkScrape(b *testing.B) {
	e := New(bigWorld().sources())
	values(b, e)
	b.Run("collect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.collector.scrape()
		}
	})
	b.Run("http", func(b *testing.B) {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		b.ReportAllocs()
		for b.Loop() {
			var rec = httptest.ResponseRecorder{Body: new(bytes.Buffer)}
			e.Handler().ServeHTTP(&rec, r)
			b.ReportMetric(float64(rec.Body.Len()), "bytes/scrape")
		}
		b.ReportMetric(float64(count(values(b, e))), "series")
	})
}

// bigWorld has 10,000 services of 10 endpoints, 100 of them in use and all of
// them probed.
func bigWorld() *world {
	w := newWorld(10000, 10)
	w.probes = make(map[lb.ServiceName]ProbeStats)
	for s, p := range w.desired.Services {
		w.probes[p.Name] = ProbeStats{Results: []uint64{uint64(s)}, Duration: Histogram{Counts: []uint64{uint64(s)}}}
		if s%100 == 0 {
			for e := range p.Endpoints {
				w.traffic(p.ID, p.Endpoints[e].ID, uint64(s+e+1))
			}
		}
	}
	return w
}
