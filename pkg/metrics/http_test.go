package metrics

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var (
	outcomes = []string{"success", "failure", "", "no_budget"}
	statuses = []string{"0", "14", "other"}
)

// httpWorld is a world with requests.
type httpWorld struct {
	*world
	http HTTP
}

func newHTTPWorld(services, n int) *httpWorld {
	w := &httpWorld{world: newWorld(services, n)}
	for _, part := range w.http.parts() {
		part.Services, part.Endpoints = make(map[lb.ServiceID]HTTPStats), make(map[lb.EndpointID]HTTPStats)
	}
	return w
}

func (w *httpWorld) exporter() *Exporter {
	src := w.sources()
	src.HTTP = HTTPSource{RetryOutcomes: outcomes, GRPCStatuses: statuses, Bounds: bounds, Read: func() HTTP { return w.http }}
	return New(src)
}

// requests adds n requests answered 200, and as much of everything else, to
// an endpoint and its service.
func (w *httpWorld) requests(part *Requests, svc lb.ServiceID, id lb.EndpointID, n uint64) {
	part.Services[svc] = part.Services[svc].and(n)
	part.Endpoints[id] = part.Endpoints[id].and(n)
}

func (h HTTPStats) and(n uint64) HTTPStats {
	more := func(counts []uint64, size, at int) []uint64 {
		counts = append(slices.Clone(counts), make([]uint64, size-len(counts))...)
		counts[at] += n
		return counts
	}
	h.Classes = more(h.Classes, httpClasses, 2)
	h.Duration.Counts = more(h.Duration.Counts, len(bounds)+1, 7)
	h.Duration.SumMicroseconds += 2000 * n
	h.Retries = more(h.Retries, len(outcomes), 3)
	h.GRPC = more(h.GRPC, len(statuses), 1)
	h.Timeouts += n
	h.Received += 10 * n
	h.Sent += 100 * n
	h.LeftOut += n
	return h
}

func requestsKey(svc string) string {
	ns := "prod"
	if svc == "other" {
		ns = ""
	}
	return `connectd_http_requests_total{code_class="2xx",namespace="` + ns + `",service="` + svc + `"}`
}

func endpointRequestsKey(id int, svc string) string {
	return strings.Replace(endpointKey("endpoint_http_requests_total", id, svc), "{", `{code_class="2xx",`, 1)
}

func restRequestsKey(svc string) string {
	return strings.Replace(restKey("endpoint_http_requests_total", svc), "{", `{code_class="2xx",`, 1)
}

// What a service was counted in mode direct goes some time after it left that
// mode. Nothing is counted twice then, and nothing goes back.
func TestModeChanges(t *testing.T) {
	w := newHTTPWorld(1, 1)
	e := w.exporter()
	forwarded, direct := &w.http.Forwarded, &w.http.Direct
	for i, step := range []struct {
		do   func()
		want float64
	}{
		{func() { w.requests(forwarded, 1, 1, 100) }, 100},
		{func() { w.requests(direct, 1, 1, 5) }, 105},
		{func() { w.requests(direct, 1, 1, 5); w.requests(forwarded, 1, 1, 1) }, 111},
		{func() { clear(direct.Services); clear(direct.Endpoints) }, 111},
		{func() { w.requests(forwarded, 1, 1, 2) }, 113},
		{func() { w.requests(direct, 1, 1, 3) }, 116},
		{func() { clear(forwarded.Services); clear(forwarded.Endpoints); w.requests(forwarded, 1, 1, 7) }, 123}, // ids given out anew
	} {
		step.do()
		v := values(t, e)
		for key, want := range map[string]float64{
			requestsKey("svc-00000"):            step.want,
			endpointRequestsKey(1, "svc-00000"): step.want,
			`connectd_http_retries_total{namespace="prod",outcome="no_budget",service="svc-00000"}`: step.want,
			`connectd_http_request_duration_seconds_sum{namespace="prod",service="svc-00000"}`:      2000 * step.want / 1e6,
			endpointKey("endpoint_http_duration_seconds_count", 1, "svc-00000"):                     step.want,
			`connectd_http_sent_bytes_total{namespace="prod",service="svc-00000"}`:                  100 * step.want,
			endpointKey("endpoint_http_sent_bytes_total", 1, "svc-00000"):                           100 * step.want,
			endpointKey("endpoint_http_received_bytes_total", 1, "svc-00000"):                       10 * step.want,
		} {
			if v[key] != want {
				t.Errorf("step %d: %s = %v, want %v", i, key, v[key], want)
			}
		}
	}
}

func endpointCallsKey(id int, status, svc string) string {
	return strings.Replace(endpointKey("endpoint_grpc_responses_total", id, svc), ",namespace", `,grpc_status="`+status+`",namespace`, 1)
}

// Calls are shown for endpoints that had some, with the results that they had,
// and sum up to what was counted wherever an endpoint's series go.
func TestCallsOfEndpoints(t *testing.T) {
	w := newHTTPWorld(1, 3)
	e := w.exporter()
	w.requests(&w.http.Forwarded, 1, 1, 4)
	w.requests(&w.http.Forwarded, 1, 2, 5)
	plain := w.http.Forwarded.Endpoints[2]
	plain.GRPC = make([]uint64, len(statuses))
	w.http.Forwarded.Endpoints[2] = plain
	expect(t, values(t, e), map[string]float64{
		endpointCallsKey(1, "14", "svc-00000"): 4,
		endpointCallsKey(1, "0", "svc-00000"):  -1,
		endpointCallsKey(2, "14", "svc-00000"): -1, // no calls
		endpointCallsKey(3, "14", "svc-00000"): -1, // nothing
		endpointRequestsKey(2, "svc-00000"):    5,
	})
	s := e.collector.state
	before := s.budget.taken
	// An endpoint that goes leaves what it had not shown.
	w.requests(&w.http.Forwarded, 1, 1, 3)
	w.replan(func(p *plan.Service) *plan.Service { return without(p, 1) })
	expect(t, values(t, e), map[string]float64{
		endpointCallsKey(1, "14", "svc-00000"): -1,
		strings.Replace(restKey("endpoint_grpc_responses_total", "svc-00000"), ",namespace", `,grpc_status="14",namespace`, 1): 3,
	})
	if got, want := before-s.budget.taken, s.budget.cost[blockEndpointHTTP]+s.budget.cost[blockEndpointGRPC]; got != want {
		t.Errorf("%d series were given back when it had gone, want %d", got, want)
	}
}

// The kernel knows nothing of connections of the forwarder's services, so they
// have no series of connections, and room for those of requests.
func TestSeriesOfRequestsOnly(t *testing.T) {
	w := newHTTPWorld(2, 2)
	e := w.exporter()
	idle := e.collector.state.budget.taken
	w.requests(&w.http.Forwarded, 1, 1, 4)
	v := values(t, e)
	expect(t, v, map[string]float64{
		requestsKey("svc-00000"):                                                                 4,
		endpointRequestsKey(1, "svc-00000"):                                                      4,
		endpointRequestsKey(2, "svc-00000"):                                                      -1, // no request ever
		requestsKey("svc-00001"):                                                                 -1,
		`connectd_series_folded{block="endpoint"}`:                                               0,
		endpointKey("endpoint_connections_total", 1, "svc-00000"):                                -1,
		`connectd_connect_duration_seconds_count{namespace="prod",service="svc-00000"}`:          -1,
		`connectd_endpoints{namespace="prod",service="svc-00000",state="active"}`:                2,
		`connectd_grpc_responses_total{grpc_status="14",namespace="prod",service="svc-00000"}`:   4,
		`connectd_grpc_responses_total{grpc_status="0",namespace="prod",service="svc-00000"}`:    -1,
		`connectd_http_retries_total{namespace="prod",outcome="",service="svc-00000"}`:           -1,
		`connectd_connect_failures_total{namespace="prod",reason="refused",service="svc-00000"}`: -1,
	})
	if idle >= e.collector.state.budget.taken {
		t.Error("series of requests are not accounted for")
	}
	// While the forwarder is away, the kernel leads connections to endpoints.
	w.traffic(1, 2, 3)
	expect(t, values(t, e), map[string]float64{
		endpointKey("endpoint_connections_total", 2, "svc-00000"): 3,
		requestsKey("svc-00000"):                                  4,
	})
}

// A reading may know for longer than the plan of what has gone. What it adds is
// in other, and what was shown is not counted again when it is back.
func TestRequestsOfWhatLeaves(t *testing.T) {
	w := newHTTPWorld(2, 2)
	e := w.exporter()
	direct := &w.http.Direct
	w.requests(direct, 1, 1, 10)
	w.requests(direct, 1, 2, 20)
	values(t, e)
	all, taken := w.desired, e.collector.state.budget.taken

	w.requests(direct, 1, 1, 3)
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 1 {
			return without(p, 1)
		}
		return p
	})
	expect(t, values(t, e), map[string]float64{
		requestsKey("svc-00000"):            33,
		endpointRequestsKey(1, "svc-00000"): -1,
		endpointRequestsKey(2, "svc-00000"): 20,
		restRequestsKey("svc-00000"):        3,
	})

	w.requests(direct, 1, 2, 4)
	w.replan(func(p *plan.Service) *plan.Service {
		if p.ID == 1 {
			return nil
		}
		return p
	})
	expect(t, values(t, e), map[string]float64{
		requestsKey("svc-00000"):            -1,
		endpointRequestsKey(2, "svc-00000"): -1,
		requestsKey("other"):                4,
		restRequestsKey("other"):            4,
	})

	w.desired = all
	w.requests(direct, 1, 2, 1)
	expect(t, values(t, e), map[string]float64{
		requestsKey("svc-00000"):            34,
		endpointRequestsKey(2, "svc-00000"): 21,
		requestsKey("other"):                4,
		restRequestsKey("other"):            4,
	})
	if got := e.collector.state.budget.taken; got != taken {
		t.Errorf("%d series taken, want %d as before", got, taken)
	}

	// When no reading knows of it either, neither does the exporter.
	w.replan(func(*plan.Service) *plan.Service { return nil })
	clear(direct.Services)
	clear(direct.Endpoints)
	values(t, e)
	if s := e.collector.state; len(s.byID) != 0 || len(s.endpoints) != 0 {
		t.Errorf("%d services and %d endpoints are remembered", len(s.byID), len(s.endpoints))
	}
}

// More services and endpoints with requests than there is room for: no scrape
// has too many series, none goes back, and all together grow by what was counted.
func TestBoundOfRequests(t *testing.T) {
	const services, n = 600, 4
	w := newHTTPWorld(services, n)
	e := w.exporter()
	random := rand.New(rand.NewPCG(3, 4))
	before := make(map[string]float64)
	var grown, shown, shownEndpoints, shownDurations, shownCalls, shownBytes, calls, bytes float64
	for round := range 8 {
		for range 2000 {
			svc := random.IntN(min(services, 100*(round+1)))
			part := w.http.parts()[svc%2]
			w.requests(part, lb.ServiceID(svc+1), lb.EndpointID(svc*n+random.IntN(n)+1), 1)
			grown++
			bytes += 100
			if svc%2 == 0 { // of direct mode calls are not known
				calls++
			}
		}
		v := values(t, e)
		if c := count(v); c > MaxSeries {
			t.Fatalf("round %d: %d series", round, c)
		}
		for key, x := range v {
			if was, ok := before[key]; ok && x < was && (strings.Contains(key, "_total") || strings.Contains(key, "seconds_count")) {
				t.Errorf("round %d: %s went from %v to %v", round, key, was, x)
			}
		}
		shown += growth(before, v, "connectd_http_requests_total")
		shownEndpoints += growth(before, v, "connectd_endpoint_http_requests_total")
		shownDurations += growth(before, v, "connectd_endpoint_http_duration_seconds_count")
		shownCalls += growth(before, v, "connectd_endpoint_grpc_responses_total")
		shownBytes += growth(before, v, "connectd_endpoint_http_sent_bytes_total")
		if shownCalls != calls || shownBytes != bytes {
			t.Fatalf("round %d: shown %v of %v calls and %v of %v bytes", round, shownCalls, calls, shownBytes, bytes)
		}
		if shown != grown || shownEndpoints != grown || shownDurations != grown {
			t.Fatalf("round %d: shown %v, %v and %v of %v requests", round, shown, shownEndpoints, shownDurations, grown)
		}
		before = v
	}
	for _, b := range []string{"service_http", "endpoint_http", "endpoint_grpc"} {
		if before[`connectd_series_folded{block="`+b+`"}`] == 0 {
			t.Errorf("nothing of block %s was folded: the test does not reach the limit", b)
		}
	}
	// Services had theirs before endpoints took the room.
	own := 0
	for _, svc := range e.collector.state.order {
		if svc.own[blockHTTP] {
			own++
		}
	}
	if at := (limitService - limitEndpoint) / e.collector.state.budget.cost[blockHTTP]; own <= at {
		t.Errorf("%d services have series of their own, which endpoints leave room for", own)
	}
}
