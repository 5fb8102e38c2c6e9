package settings

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

// encoded are settings and the shortest way to say them.
var encoded = []struct{ in, want string }{
	{`{}`, `{}`},
	{`{"protocol": "tcp", "loadBalancing": {"policy": "roundRobin", "panicThresholdPercent": 50}}`, `{}`},
	{`{"drain": {"deadlineSeconds": 30, "connections": "terminate"}, "outlier": {}}`, `{}`},
	{`{"protocol": "udp", "drain": {"connections": "leave", "deadlineSeconds": 0.5}}`, `{"drain":{"connections":"leave","deadlineSeconds":0.5},"protocol":"udp"}`},
	{`{"outlier": {"consecutiveFailures": 1, "baseEjectionSeconds": 600, "maxEjectionSeconds": 600}}`, `{"outlier":{"baseEjectionSeconds":600,"consecutiveFailures":1}}`},
	{`{"outlier": {"baseEjectionSeconds": 600.000000001, "maxEjectionSeconds": 86400, "maxEjectionPercent": 0}}`, `{"outlier":{"baseEjectionSeconds":600.000000001,"maxEjectionPercent":0,"maxEjectionSeconds":86400}}`},
	{`{"loadBalancing": {"policy": "sourceHash", "panicThresholdPercent": 0}}`, `{"loadBalancing":{"panicThresholdPercent":0,"policy":"sourceHash"}}`},
	{`{"healthCheck": {}}`, `{"healthCheck":{}}`},
	{`{"healthCheck": {"protocol": "tcp", "intervalSeconds": 1, "timeoutSeconds": 1}}`, `{"healthCheck":{"intervalSeconds":1}}`},
	{`{"healthCheck": {"protocol": "http", "path": "/", "port": 81, "healthyThreshold": 1, "unhealthyThreshold": 4}}`, `{"healthCheck":{"healthyThreshold":1,"port":81,"protocol":"http","unhealthyThreshold":4}}`},
	{`{"healthCheck": {"protocol": "https", "path": "/a?b=<&>", "serverName": "a.b", "insecureSkipVerify": true}}`, `{"healthCheck":{"insecureSkipVerify":true,"path":"/a?b=<&>","protocol":"https","serverName":"a.b"}}`},
	{`{"healthCheck": {"protocol": "grpc", "grpcService": "a\"b\\c"}}`, `{"healthCheck":{"grpcService":"a\"b\\c","protocol":"grpc"}}`},
	{`{"appProtocol": "http", "mode": "proxy", "timeout": {"idleTimeoutSeconds": 300}, "retry": {"attempts": 2}}`, `{"appProtocol":"http"}`},
	{`{"appProtocol": "http2", "mode": "direct"}`, `{"appProtocol":"http2","mode":"direct"}`},
	{`{"appProtocol": "grpc", "timeout": {"idleTimeoutSeconds": 2147483646.999999999, "perRequestTimeoutSeconds": 0}}`, `{"appProtocol":"grpc","timeout":{"idleTimeoutSeconds":2147483646.999999999,"perRequestTimeoutSeconds":0}}`},
	{`{"appProtocol": "http", "retry": {"attempts": 0, "methods": "all", "budgetPercent": 100, "budgetFloorPerSecond": 0}}`, `{"appProtocol":"http","retry":{"attempts":0,"budgetFloorPerSecond":0,"budgetPercent":100,"methods":"all"}}`},
	{`{"appProtocol": "http", "accessLog": {"format": "JSON", "path": "-", "includeQueryParameters": "ENABLED"}}`, `{"accessLog":{"format":"JSON","includeQueryParameters":"ENABLED","path":"-"},"appProtocol":"http"}`},
	{`{"appProtocol": "http", "accessLog": {"format": "TEXT", "path": "-"}}`, `{"accessLog":{"format":"TEXT","path":"-"},"appProtocol":"http"}`},
}

func TestEncode(t *testing.T) {
	for _, tt := range encoded {
		s, err := Parse("s", []byte(tt.in))
		if err != nil {
			t.Errorf("%s: %s", tt.in, err)
			continue
		}
		if got := Encode(s); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
		again, err := Parse("s", []byte(tt.want))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s: read back as %+v, %v, want %+v", tt.in, again, err, s)
		}
	}
}

// TestEncodeEveryField: a field that Encode forgets would come back as its
// default, so none here has it, but for those named below.
func TestEncodeEveryField(t *testing.T) {
	in := `{"loadBalancing": {"policy": "random", "panicThresholdPercent": 1},
		"drain": {"deadlineSeconds": 1, "connections": "leave"},
		"outlier": {"consecutiveFailures": 1, "baseEjectionSeconds": 1, "maxEjectionSeconds": 2, "maxEjectionPercent": 1},
		"healthCheck": {"protocol": "https", "path": "/a", "port": 1, "intervalSeconds": 2, "timeoutSeconds": 1,
			"healthyThreshold": 4, "unhealthyThreshold": 5, "serverName": "a", "insecureSkipVerify": true},
		"appProtocol": "grpc", "timeout": {"idleTimeoutSeconds": 1, "perRequestTimeoutSeconds": 2},
		"retry": {"attempts": 1, "methods": "all", "budgetPercent": 1, "budgetFloorPerSecond": 1},
		"accessLog": {"format": "JSON", "path": "-", "includeQueryParameters": "ENABLED"}}`
	s, err := Parse("s", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	def, err := Parse("s", []byte(`{"healthCheck": {}, "appProtocol": "http"}`))
	if err != nil {
		t.Fatal(err)
	}
	var same []string
	sameFields(reflect.ValueOf(*s), reflect.ValueOf(*def), "", &same)
	want := "Name.Namespace Name.DiscoveryName Protocol ClientAliases HealthCheck.GRPCService HealthCheck.From HealthCheck.CAFile Publish HTTP.Direct Endpoints"
	if got := strings.Join(same, " "); got != want {
		t.Errorf("this test leaves out\n%s, want\n%s", got, want)
	}
	if again, err := Parse("s", []byte(Encode(s))); err != nil || !reflect.DeepEqual(again, s) {
		t.Errorf("%s read back as %+v, %v", Encode(s), again, err)
	}
}

// sameFields lists the fields that are the same in a and b.
func sameFields(a, b reflect.Value, path string, same *[]string) {
	if a.Kind() == reflect.Pointer {
		a, b = a.Elem(), b.Elem()
	}
	if a.Kind() != reflect.Struct {
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			*same = append(*same, strings.TrimPrefix(path, "."))
		}
		return
	}
	for i := range a.NumField() {
		sameFields(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name, same)
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		``:                                     "s: is empty",
		`[]`:                                   "s: a list is not a mapping",
		`null`:                                 "s: has no value",
		`{"a": 1}`:                             "s: a: unknown key",
		`{"drains": {}}`:                       "s: drains: unknown key (did you mean drain?)",
		`{"drain": {}, "drain": 1}`:            "s: drain: duplicate key",
		`{"drain": {"deadlineSeconds": 1e3}}`:  "s: drain.deadlineSeconds: 1e3 is not a number of seconds",
		`{"drain": {"deadlineSeconds": "30"}}`: `s: drain.deadlineSeconds: "30" is not a number of seconds`,
		`{"drain": {"deadlineSeconds": 99999999999999999999}}`: "s: drain.deadlineSeconds: 99999999999999999999 is not in 0.05-86400 seconds",
		`{"retry": {}}`: "s: retry: is only for services with appProtocol",
		`{"appProtocol": "http", "protocol": "udp"}`:                                        "s: appProtocol: is only for protocol tcp",
		`{"discoveryName": "a"}`:                                                            "s: discoveryName: unknown key",
		`{"healthCheck": {"from": "caller"}}`:                                               "s: healthCheck.from: is only for catalog files, a task is probed from its own network namespace",
		`{"healthCheck": {"protocol": "https", "caFile": "/etc/shadow"}}`:                   "s: healthCheck.caFile: is only for catalog files, it names a file of the node",
		`{"appProtocol": "http", "accessLog": {"format": "TEXT", "path": "/etc/cron.d/x"}}`: `s: accessLog.path: "/etc/cron.d/x" is only for catalog files, it names a file of the node; - is the daemon's output`,
	} {
		if s, err := Parse("s", []byte(in)); err == nil || err.Error() != want {
			t.Errorf("%s: got %+v, %v, want %s", in, s, err, want)
		}
	}
}

// TestLocal: what labels may not say a catalog file may.
func TestLocal(t *testing.T) {
	in := `{"appProtocol": "http", "healthCheck": {"protocol": "https", "caFile": "a.pem", "from": "caller"}, "accessLog": {"format": "TEXT", "path": "/var/log//x"}}`
	d := Decoder{Local: true, Dir: "/etc/connectd", CheckCA: func(path string) error {
		if path != "/etc/connectd/a.pem" {
			return errors.New("wrong path")
		}
		return nil
	}}
	s, err := decode(d, in)
	if err != nil || s.HealthCheck.CAFile != "/etc/connectd/a.pem" || s.HealthCheck.From != lb.FromCaller || s.HTTP.AccessLog.Path != "/var/log/x" {
		t.Errorf("got %+v, %+v, %v", s.HealthCheck, s.HTTP, err)
	}
	if got := Encode(s); got != `{"appProtocol":"http","healthCheck":{"protocol":"https"}}` {
		t.Errorf("encoded: %s", got)
	}
}

func decode(d Decoder, in string) (*lb.Service, error) {
	doc, err := strictyaml.ParseJSON("s", []byte(in))
	if err != nil {
		return nil, err
	}
	s := new(lb.Service)
	d.Decode(doc.Root().Map(Keys()...), s)
	return s, doc.Err()
}

func TestDecodeOver(t *testing.T) {
	http := func() *lb.HTTP {
		return &lb.HTTP{Protocol: lb.AppGRPC, IdleTimeout: time.Minute, RequestTimeout: time.Hour}
	}
	for _, tt := range []struct {
		in   string
		http *lb.HTTP
		want string
	}{
		{`{}`, nil, `{}`},
		{`{}`, http(), `{"appProtocol":"grpc","timeout":{"idleTimeoutSeconds":60,"perRequestTimeoutSeconds":3600}}`},
		{`{"mode": "direct"}`, http(), `{"appProtocol":"grpc","mode":"direct"}`},
		{`{"retry": {"attempts": 0}, "drain": {"deadlineSeconds": 1}}`, http(), `{"appProtocol":"grpc","drain":{"deadlineSeconds":1},"retry":{"attempts":0},"timeout":{"idleTimeoutSeconds":60,"perRequestTimeoutSeconds":3600}}`},
		{`{"retry": {}}`, nil, `s: retry: is only for services with appProtocol`},
		{`{"mode": "direct", "retry": {}}`, http(), `s: retry: is not for mode direct, which has no forwarder`},
		{`{"appProtocol": "http"}`, http(), `s: appProtocol: is said by elsewhere`},
		{`{"protocol": "udp"}`, nil, `s: protocol: is said by elsewhere`},
		{`{"timeout": {}}`, http(), `s: timeout: is said by elsewhere`},
	} {
		doc, err := strictyaml.ParseJSON("s", []byte(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		s := &lb.Service{Protocol: lb.TCP, HTTP: tt.http}
		Decoder{}.DecodeOver(doc.Root().Map(Keys()...), s, "elsewhere")
		got := Encode(s)
		if err := doc.Err(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// FuzzSettings: whatever is accepted keeps the bounds of package lb, and comes
// back from Encode as it was.
func FuzzSettings(f *testing.F) {
	for _, tt := range encoded {
		f.Add(tt.in)
	}
	f.Add(`{"appProtocol": "http", "healthCheck": {"protocol": "https", "caFile": "a.pem", "from": "caller"}, "accessLog": {"format": "TEXT", "path": "/a"}}`)
	f.Fuzz(func(t *testing.T, in string) {
		if s, err := decode(Decoder{Local: true, Dir: "/etc"}, in); err == nil {
			checkSettings(t, s)
		}
		s, err := Parse("s", []byte(in))
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "s: ") {
					t.Errorf("error without name: %q", line)
				}
			}
			return
		}
		checkSettings(t, s)
		text := Encode(s)
		again, err := Parse("s", []byte(text))
		if err != nil || !reflect.DeepEqual(again, s) || Encode(again) != text {
			t.Errorf("%s read back as %+v, %v, was %+v", text, again, err, s)
		}
	})
}

// checkSettings holds optional fields to what lb.Service promises.
func checkSettings(t *testing.T, s *lb.Service) {
	t.Helper()
	if h := s.HealthCheck; h != nil && (h.Timeout <= 0 || h.Timeout > h.Interval || h.HealthyThreshold == 0 || h.UnhealthyThreshold == 0) {
		t.Errorf("health check %+v", h)
	}
	if s.HTTP != nil {
		checkHTTP(t, s)
	}
	if s.Drain.Deadline <= 0 || s.Outlier.ConsecutiveFailures == 0 || s.Outlier.BaseEjection > s.Outlier.MaxEjection {
		t.Errorf("drain %+v outlier %+v", s.Drain, s.Outlier)
	}
}

func checkHTTP(t *testing.T, s *lb.Service) {
	t.Helper()
	h := *s.HTTP
	if s.Protocol != lb.TCP || h.Direct && h != (lb.HTTP{Protocol: h.Protocol, Direct: true}) {
		t.Errorf("%s with %+v", s.Protocol, h)
	}
	for _, d := range []time.Duration{h.IdleTimeout, h.RequestTimeout} {
		if d != 0 && (d < minSeconds || d > maxTimeout) {
			t.Errorf("timeout %s", d)
		}
	}
	if r := h.Retry; r.Attempts > maxAttempts || r.BudgetPercent > 100 || r.BudgetFloor > maxFloor {
		t.Errorf("retry %+v", r)
	}
	if p := h.AccessLog.Path; p != "" && p != "-" && (!filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/") {
		t.Errorf("access log %+v", h.AccessLog)
	}
}
