package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// witness is an endpoint that notes what it sees. All of a service share one.
type witness struct {
	pause time.Duration // before the head, and then until the client lets it go on
	goOn  chan struct{}

	mu      sync.Mutex
	at      string // who was asked last
	tries   int
	arrived time.Time // the first try
	got     *http.Request
	body    int64
	waits   chan struct{}
}

func (s *witness) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries, s.got, s.body, s.at = 0, nil, 0, ""
}

func (s *witness) serve(w http.ResponseWriter, r *http.Request, at string) {
	n, _ := io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	if s.tries++; s.tries == 1 {
		s.arrived = time.Now()
	}
	s.at, s.got, s.body = at, r, n
	again := s.tries > 1
	s.mu.Unlock()
	grpc := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
	if grpc {
		w.Header().Set("Content-Type", "application/grpc")
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/flaky") && !again && grpc:
		w.Header().Set("Grpc-Status", "14")
		return
	case strings.HasSuffix(r.URL.Path, "/flaky") && !again:
		w.WriteHeader(503)
		return
	case strings.HasSuffix(r.URL.Path, "/stuck"):
		s.waits <- struct{}{}
		<-r.Context().Done()
		return
	}
	time.Sleep(s.pause)
	if !grpc {
		w.WriteHeader(201)
	}
	w.(http.Flusher).Flush()
	<-s.goOn
	fmt.Fprint(w, "some body")
	if grpc {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
	}
}

var quoted = `"((?:[^"\\]|\\.)*)"`

// textLine takes a line of TEXT apart, into the keys of JSON.
func textLine(tb testing.TB, kind lb.AppProtocol, line string) map[string]string {
	tb.Helper()
	keys := []string{"start_time", "method", "path", "protocol", "response_code"}
	pattern := `^\[(\S+)\] "(\S+) (\S+) (\S+)" (\d+)`
	if kind == lb.AppGRPC {
		keys, pattern = append(keys, "grpc_status"), pattern+` (\S+)`
	}
	keys = append(keys, "bytes_received", "bytes_sent", "duration", "upstream_service_time", "forwarded_for", "user_agent", "request_id", "authority", "upstream_host")
	pattern += ` (\d+) (\d+) (\d+) (\d+|-)` + strings.Repeat(" "+quoted, 5)
	if kind != lb.AppHTTP {
		keys, pattern = append(keys, "stream_id"), pattern+" "+quoted
	}
	m := regexp.MustCompile(pattern + `(?: tries=(\d+))?$`).FindStringSubmatch(line)
	if m == nil {
		tb.Fatalf("%q does not match %s", line, pattern)
	}
	out := make(map[string]string)
	for i, k := range append(keys, "tries") {
		if json.Unmarshal([]byte(`"`+m[1+i]+`"`), new(string)) != nil {
			tb.Errorf("%s is not escaped: %s", k, m[1+i])
		}
		var text string
		json.Unmarshal([]byte(`"`+m[1+i]+`"`), &text)
		out[k] = text
	}
	if out["tries"] == "" {
		delete(out, "tries")
	}
	return out
}

// flatLine is a line of JSON in the same form. What is a number there must be
// one, and nothing else.
func flatLine(tb testing.TB, kind lb.AppProtocol, line string) map[string]string {
	tb.Helper()
	numbers := []string{"response_code", "bytes_received", "bytes_sent", "duration", "tries"}
	out := make(map[string]string)
	for k, v := range jsonLine(tb, line) {
		if k == "duration_ms" && kind == lb.AppHTTP {
			k = "duration"
		} else if k == "duration" && kind == lb.AppHTTP {
			k = "duration, of another protocol"
		}
		_, number := v.(json.Number)
		if number != slices.Contains(numbers, k) {
			tb.Errorf("%s is a %T: %s", k, v, line)
		}
		if out[k] = fmt.Sprint(v); v == nil {
			out[k] = "-"
		}
	}
	return out
}

// Every field of a line is what client and endpoint saw, in both formats, and
// by the same rules for all protocols.
func TestLogFields(t *testing.T) {
	for _, kind := range []lb.AppProtocol{lb.AppHTTP, lb.AppHTTP2, lb.AppGRPC} {
		for name, format := range logFormats {
			t.Run(kind.String()+" "+name, func(t *testing.T) {
				t.Parallel()
				logFields(t, kind, format)
			})
		}
	}
}

func logFields(t *testing.T, kind lb.AppProtocol, format lb.AccessLogFormat) {
	s := &witness{pause: 30 * time.Millisecond, waits: make(chan struct{}, 1), goOn: make(chan struct{}, 1)}
	var endpoints []string
	for range 2 {
		var at string
		h := func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, at) }
		if kind == lb.AppHTTP {
			h1 := httptest.NewUnstartedServer(http.HandlerFunc(h))
			at = h1.Listener.Addr().String()
			h1.Start()
			t.Cleanup(h1.Close)
		} else {
			at = serveH2(t, func(w http.ResponseWriter, r *http.Request) { h(w, r) })
		}
		endpoints = append(endpoints, at)
	}
	w := newWorld(t, endpoints...)
	w.spec.HTTP.Protocol = kind
	lines := w.logged(format, endpoints...)
	client, protocol, status, result := w.client(), "HTTP/1.1", "201", ""
	if kind != lb.AppHTTP {
		client, protocol = w.h2client(), "HTTP/2"
	} else {
		// The end of a connection alone would say that the request is whole.
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				err = c.(*net.TCPConn).SetLinger(0)
			}
			return c, err
		}
	}
	if kind == lb.AppGRPC {
		status, result = "200", "NotFound"
	}
	asked := 0
	source := ""
	ask := func(method, path string, body string, want map[string]string, answered bool, fields ...string) {
		t.Helper()
		if kind == lb.AppGRPC {
			method = "POST"
			fields = append(fields, "Content-Type", "application/grpc")
		}
		s.reset()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if want["response_code"] == "0" {
			go func() {
				<-s.waits
				cancel()
			}()
		}
		req, err := http.NewRequestWithContext(ctx, method, w.url(path), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "cart.shop"
		req.Header.Set("User-Agent", `shop/1 "x"`)
		for i := 0; i < len(fields); i += 2 {
			req.Header.Add(fields[i], fields[i+1])
		}
		began := time.Now()
		r, err := client.Do(req)
		sent := 0
		if err == nil {
			if answered {
				time.Sleep(s.pause)
				s.goOn <- struct{}{}
			}
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			sent = len(b)
			if got := strconv.Itoa(r.StatusCode); got != want["response_code"] {
				t.Errorf("%s is answered %s, want %s", path, got, want["response_code"])
			}
		} else if want["response_code"] != "0" {
			t.Fatal(err)
		}
		asked++
		line := lines(asked)[asked-1]
		seen := time.Since(began)
		got := textLine
		if format == lb.LogJSON {
			got = flatLine
		}
		e := got(t, kind, line)
		s.mu.Lock()
		defer s.mu.Unlock()

		// What depends on time.
		start, err := time.Parse("2006-01-02T15:04:05.000Z", e["start_time"])
		if early := began.Sub(start); err != nil || early > 10*time.Millisecond || s.got != nil && start.After(s.arrived) {
			t.Errorf("%s: start_time, after the client's %s: %s (%v)", path, -early, line, err)
		}
		pauses := 0
		if answered {
			pauses = int(s.pause.Milliseconds())
		}
		took, err := strconv.Atoi(e["duration"])
		if err != nil || took < 2*pauses-1 || time.Duration(took)*time.Millisecond > seen {
			t.Errorf("%s: duration, of %s that the client saw: %s", path, seen, line)
		}
		if up, err := strconv.Atoi(e["upstream_service_time"]); answered != (err == nil) || answered && (up < pauses-1 || up > took-pauses+1) {
			t.Errorf("%s: upstream_service_time: %s", path, line)
		}
		for _, k := range []string{"start_time", "duration", "upstream_service_time"} {
			delete(e, k)
		}

		maps.Copy(want, map[string]string{
			"method": method, "path": strings.TrimSuffix(path, "?a=secret"), "protocol": protocol, "bytes_received": fmt.Sprint(len(body)),
			"bytes_sent": fmt.Sprint(sent), "user_agent": `shop/1 "x"`, "authority": "cart.shop", "upstream_host": "-",
			"forwarded_for": source, "request_id": e["request_id"],
		})
		if s.got != nil {
			forwarded := s.got.Header["X-Forwarded-For"]
			want["forwarded_for"], want["request_id"], want["upstream_host"] = forwarded[len(forwarded)-1], s.got.Header.Get("X-Request-Id"), s.at
			want["bytes_received"] = fmt.Sprint(s.body)
			if s.tries > 1 {
				want["tries"] = fmt.Sprint(s.tries)
			}
			if s.got.UserAgent() != want["user_agent"] || s.got.Host != want["authority"] || s.got.Method != method || s.got.RequestURI != path {
				t.Errorf("the endpoint got %+v", s.got)
			}
			if source == "" {
				source = want["forwarded_for"]
			}
		}
		if len(want["request_id"]) < 4 {
			t.Errorf("%s: request_id: %s", path, line)
		}
		if kind != lb.AppHTTP {
			want["stream_id"] = want["request_id"]
		}
		if kind != lb.AppGRPC {
			delete(want, "grpc_status")
		}
		if !maps.Equal(e, want) {
			t.Errorf("%s: %s\n got %v\nwant %v", path, line, e, want)
		}
	}
	answer := func() map[string]string {
		return map[string]string{"response_code": status, "grpc_status": result}
	}
	own := func(code, grpc string) map[string]string {
		if kind == lb.AppGRPC {
			code = "200"
		}
		return map[string]string{"response_code": code, "grpc_status": grpc}
	}
	ask("GET", "/plain?a=secret", "", answer(), true)
	ask("POST", "/behind", "12345", answer(), true,
		"X-Forwarded-For", "203.0.113.8", "X-Forwarded-For", "203.0.113.9", "X-Request-Id", "mine", "X-Request-Id", "other")
	ask("PUT", "/shop/flaky", "123", answer(), true)
	ask("GET", "/stuck", "", map[string]string{"response_code": "0", "grpc_status": "-"}, false)
	w.change(func(h *lb.HTTP) { h.RequestTimeout = 200 * time.Millisecond }, endpoints...)
	ask("GET", "/stuck", "", own("504", "DeadlineExceeded"), false)
	<-s.waits
	w.publish() // no endpoints
	ask("GET", "/none", "", own("503", "Unavailable"), false)
	if source == "" || strings.Contains(source, ",") {
		t.Errorf("the endpoints saw requests come from %q", source)
	}
}
