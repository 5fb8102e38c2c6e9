package metrics

import (
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"connectd/pkg/lb"
)

// HTTPSource reads what is known of requests: of the forwarder's own, and of
// those that the kernel has seen in direct mode.
type HTTPSource struct {
	RetryOutcomes []string  // the order of HTTPStats.Retries; those that are "" are not shown
	GRPCStatuses  []string  // the order of HTTPStats.GRPC
	Bounds        []float64 // upper bounds of histogram buckets, seconds, without +Inf
	Read          func() HTTP
}

// HTTP is one reading. Its two parts count for the same series, each on its
// own: what a service was counted in mode direct is gone some time after it left
// that mode, and must not make the rest look as if it had begun anew.
type HTTP struct {
	Forwarded Requests
	Direct    Requests
	Refusals  []Counter         // requests and connections that connectd answered or ended itself, by reason
	Clients   uint64            // connections held
	Upstream  map[string]uint64 // connections to endpoints, by state
	LogLines  uint64
	LogDrops  uint64
}

// Requests are those that one part of connectd has seen.
type Requests struct {
	Services  map[lb.ServiceID]HTTPStats  // those with a request ever
	Endpoints map[lb.EndpointID]HTTPStats // the same; Classes, Duration, Received, Sent and GRPC
}

const httpParts = 2

func (h *HTTP) parts() [httpParts]*Requests { return [...]*Requests{&h.Forwarded, &h.Direct} }

func (h *HTTP) hasService(id lb.ServiceID) bool {
	_, forwarded := h.Forwarded.Services[id]
	_, direct := h.Direct.Services[id]
	return forwarded || direct
}

func (h *HTTP) hasEndpoint(id lb.EndpointID) bool {
	_, forwarded := h.Forwarded.Endpoints[id]
	_, direct := h.Direct.Endpoints[id]
	return forwarded || direct
}

// HTTPStats counts requests. A count going back means that the id was given
// out anew.
type HTTPStats struct {
	Classes  []uint64 // by HTTPClasses
	GRPC     []uint64
	Duration Histogram
	Retries  []uint64
	Timeouts uint64
	Received uint64 // body bytes from clients
	Sent     uint64 // body bytes to clients
	LeftOut  uint64 // connections of direct mode that pipeline
}

// HTTPClasses are the words for classes of status codes; none is a request that
// got no response, other a status that direct mode could not read.
func HTTPClasses() []string { return []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"} }

const httpClasses = 7

func (s *state) httpLen() int {
	h := &s.src.HTTP
	return httpClasses + len(h.GRPCStatuses) + len(h.Bounds) + 2 + len(h.RetryOutcomes) + 4
}

func (s *state) httpEndpointLen() int { return httpClasses + len(s.src.HTTP.Bounds) + 2 + 2 }

// layOut puts what a service has counted into one row.
func (s *state) layOut(dst []uint64, h *HTTPStats) []uint64 {
	src := &s.src.HTTP
	dst = appendCounts(dst, h.Classes, httpClasses)
	dst = appendHistogram(dst, h.Duration, len(src.Bounds)+1)
	dst = appendCounts(dst, h.GRPC, len(src.GRPCStatuses))
	dst = appendCounts(dst, h.Retries, len(src.RetryOutcomes))
	return append(dst, h.Timeouts, h.Received, h.Sent, h.LeftOut)
}

// allotHTTP gives series to those endpoints of a service that have had requests.
func (s *state) allotHTTP(svc *service) {
	if !svc.requests {
		return
	}
	for i := range svc.plan.Endpoints {
		id := svc.plan.Endpoints[i].ID
		if !s.http.hasEndpoint(id) {
			continue
		}
		calls := nonzero(s.http.Forwarded.Endpoints[id].GRPC)
		if !svc.own[blockHTTP] { // then its endpoints are in other too
			s.budget.folded[blockEndpointHTTP]++
			if calls {
				s.budget.folded[blockEndpointGRPC]++
			}
			continue
		}
		e := s.endpointOf(id)
		if !e.ownHTTP {
			e.ownHTTP = s.budget.take(blockEndpointHTTP, limitEndpoint)
		}
		switch {
		case !calls || e.ownGRPC:
		case e.ownHTTP:
			e.ownGRPC = s.budget.take(blockEndpointGRPC, limitEndpoint)
		default:
			s.budget.folded[blockEndpointGRPC]++
		}
	}
}

// settleHTTP books what requests have grown by.
func (s *state) settleHTTP() {
	for i, part := range s.http.parts() {
		for id, now := range part.Services {
			if svc := s.byID[id]; svc != nil {
				s.scratch = s.layOut(s.scratch[:0], &now)
				svc.http[i].settle(s.scratch, svc.own[blockHTTP], s.other.http[0].shown)
			}
		}
		for id, now := range part.Endpoints {
			if e := s.endpointOf(id); e != nil {
				s.scratch = appendCounts(s.scratch[:0], now.Classes, httpClasses)
				s.scratch = appendHistogram(s.scratch, now.Duration, len(s.src.HTTP.Bounds)+1)
				s.scratch = append(s.scratch, now.Received, now.Sent)
				rest, restGRPC := s.restOf(e.service)
				e.http[i].settle(s.scratch, e.ownHTTP, rest)
				if i == 0 { // the kernel reads no calls
					e.grpc.settle(now.GRPC, e.ownGRPC, restGRPC)
				}
			}
		}
	}
}

// restOf returns the series of a service's endpoints without their own, and
// those of their calls.
func (s *state) restOf(svc *service) (rest, grpc []uint64) {
	if !svc.own[blockHTTP] {
		svc = s.other
	}
	if svc.restHTTP == nil {
		svc.restHTTP = make([]uint64, s.httpEndpointLen())
		svc.restGRPC = make([]uint64, len(s.src.HTTP.GRPCStatuses))
	}
	return svc.restHTTP, svc.restGRPC
}

// httpAccount is the ledger of an object's requests.
type httpAccount [httpParts]account

// snapshot sums the object's own series, of which there are n.
func (a *httpAccount) snapshot(n int) []uint64 {
	out := make([]uint64, n)
	for i := range a {
		for k, v := range a[i].shown {
			out[k] += v
		}
	}
	return out
}

// httpLabels are those of a service's HTTP series.
type httpLabels struct {
	classes, grpc, retries [][]*dto.LabelPair
	rest                   *httpEndpointLabels
}

type httpEndpointLabels struct {
	base    []*dto.LabelPair
	classes [][]*dto.LabelPair
	grpc    [][]*dto.LabelPair // nil until first shown
}

func (s *state) emitHTTP(f *families, out *scrape, svc *service) {
	src := &s.src.HTTP
	if svc.httpLabels == nil {
		svc.httpLabels = &httpLabels{
			classes: svc.each("code_class", HTTPClasses()), grpc: svc.each("grpc_status", src.GRPCStatuses),
			retries: svc.each("outcome", src.RetryOutcomes), rest: endpointHTTPLabels("other", svc.name),
		}
	}
	l := svc.httpLabels
	v := svc.http.snapshot(s.httpLen())
	for i := range httpClasses {
		out.add(f.httpRequests, float64(v[i]), l.classes[i])
	}
	v = v[httpClasses:]
	n := len(src.Bounds) + 1
	out.addHistogram(f.httpTime, src.Bounds, v[:n], v[n], svc.base())
	v = v[n+1:]
	for i := range src.GRPCStatuses {
		if v[i] > 0 { // most services have no calls, and those few results
			out.add(f.grpcResponses, float64(v[i]), l.grpc[i])
		}
	}
	v = v[len(src.GRPCStatuses):]
	for i, word := range src.RetryOutcomes {
		if word != "" {
			out.add(f.httpRetries, float64(v[i]), l.retries[i])
		}
	}
	v = v[len(src.RetryOutcomes):]
	for i, family := range [...]*family{f.httpTimeouts, f.httpReceived, f.httpSent, f.httpLeftOut} {
		out.add(family, float64(v[i]), svc.base())
	}
	if nonzero(svc.restHTTP) {
		s.emitEndpointHTTP(f, out, l.rest, slices.Clone(svc.restHTTP))
	}
	s.emitEndpointGRPC(f, out, l.rest, svc.restGRPC)
}

// each returns the labels of a service with each of the values.
func (svc *service) each(name string, values []string) [][]*dto.LabelPair {
	out := make([][]*dto.LabelPair, len(values))
	for i, v := range values {
		out[i] = svc.pairs(name, v)
	}
	return out
}

func endpointHTTPLabels(endpoint string, name lb.ServiceName) *httpEndpointLabels {
	l := &httpEndpointLabels{base: pairs("endpoint", endpoint, "namespace", name.Namespace, "service", name.DiscoveryName)}
	l.classes = l.each("code_class", HTTPClasses())
	return l
}

// each returns the labels of an endpoint with each of the values.
func (l *httpEndpointLabels) each(name string, values []string) [][]*dto.LabelPair {
	out := make([][]*dto.LabelPair, len(values))
	for i, v := range values {
		out[i] = append(slices.Clone(l.base), pairs(name, v)...)
		slices.SortFunc(out[i], func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
	return out
}

func (s *state) emitEndpointHTTP(f *families, out *scrape, l *httpEndpointLabels, v []uint64) {
	for i := range httpClasses {
		out.add(f.endpointRequests, float64(v[i]), l.classes[i])
	}
	v = v[httpClasses:]
	n := len(s.src.HTTP.Bounds) + 1
	out.addHistogram(f.endpointTime, s.src.HTTP.Bounds, v[:n], v[n], l.base)
	v = v[n+1:]
	out.add(f.endpointBodiesIn, float64(v[0]), l.base)
	out.add(f.endpointBodiesOut, float64(v[1]), l.base)
}

// emitEndpointGRPC adds an endpoint's calls, of those results that there were.
func (s *state) emitEndpointGRPC(f *families, out *scrape, l *httpEndpointLabels, v []uint64) {
	for i, n := range v {
		if n == 0 {
			continue
		}
		if l.grpc == nil {
			l.grpc = l.each("grpc_status", s.src.HTTP.GRPCStatuses)
		}
		out.add(f.endpointGRPC, float64(n), l.grpc[i])
	}
}

// emitForwarder adds what belongs to no service.
func (s *state) emitForwarder(f *families, out *scrape) {
	h := &s.http
	out.add(f.forwarderClients, float64(h.Clients), nil)
	for _, word := range slices.Sorted(maps.Keys(h.Upstream)) {
		out.add(f.forwarderUpstream, float64(h.Upstream[word]), pairs("state", word))
	}
	for _, c := range h.Refusals {
		out.add(f.forwarderRefused, float64(c.Value), pairs("reason", c.Reason))
	}
	out.add(f.logLines, float64(h.LogLines), nil)
	out.add(f.logDrops, float64(h.LogDrops), nil)
}

func (f *families) addHTTP(add adder) {
	endpoint := []string{"endpoint", "namespace", "service"}
	service := []string{"namespace", "service"}
	f.httpRequests = add(counter, "http_requests_total",
		"Requests by class of the status that the client got; none is no response, other an HTTP/2 status that direct mode could not read. Source: forwarder, in direct mode cgroup_skb.", "code_class", "namespace", "service")
	f.httpTime = add(histogram, "http_request_duration_seconds",
		"Time from a request's head to the end of its response in seconds, in direct mode to its head. Source: forwarder, in direct mode cgroup_skb.", service...)
	f.grpcResponses = add(counter, "grpc_responses_total",
		"Calls by gRPC status. Source: forwarder.", "grpc_status", "namespace", "service")
	f.httpRetries = add(counter, "http_retries_total",
		"Requests that were tried again, by what became of them, and those that were not, by why. Source: forwarder.", "namespace", "outcome", "service")
	f.httpTimeouts = add(counter, "http_timeouts_total",
		"Requests that took longer than perRequestTimeoutSeconds. Source: forwarder.", service...)
	f.httpReceived = add(counter, "http_received_bytes_total",
		"Bytes of request bodies from clients. Source: forwarder.", service...)
	f.httpSent = add(counter, "http_sent_bytes_total",
		"Bytes of response bodies to clients. Source: forwarder.", service...)
	f.httpLeftOut = add(counter, "http_connections_left_out_total",
		"Connections of which direct mode counts no requests, for they pipeline. Source: cgroup_skb.", service...)
	f.endpointRequests = add(counter, "endpoint_http_requests_total",
		"Tries by class of the endpoint's status; none is no response. Source: forwarder, in direct mode cgroup_skb.", append([]string{"code_class"}, endpoint...)...)
	f.endpointTime = add(histogram, "endpoint_http_duration_seconds",
		"Time that a try took in seconds. Source: forwarder, in direct mode cgroup_skb.", endpoint...)
	f.endpointGRPC = add(counter, "endpoint_grpc_responses_total",
		"Tries of calls by gRPC status. Source: forwarder.", "endpoint", "grpc_status", "namespace", "service")
	f.endpointBodiesIn = add(counter, "endpoint_http_received_bytes_total",
		"Bytes of request bodies that came from clients for tries of the endpoint. Source: forwarder.", endpoint...)
	f.endpointBodiesOut = add(counter, "endpoint_http_sent_bytes_total",
		"Bytes of the endpoint's response bodies to clients. Source: forwarder.", endpoint...)
	f.forwarderClients = add(gauge, "forwarder_connections",
		"Connections from clients that the forwarder holds. Source: forwarder.")
	f.forwarderUpstream = add(gauge, "forwarder_upstream_connections",
		"Connections from the forwarder to endpoints, by whether a request is on them. Source: forwarder.", "state")
	f.forwarderRefused = add(counter, "forwarder_refusals_total",
		"Requests that connectd answered itself, and connections it ended, by reason. Source: forwarder.", "reason")
	f.logLines = add(counter, "access_log_lines_total", "Requests written to access logs. Source: accesslog.")
	f.logDrops = add(counter, "access_log_dropped_total", "Requests that access logs had no room for. Source: accesslog.")
}
