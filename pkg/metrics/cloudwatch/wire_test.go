package cloudwatch

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// wire is a CloudWatch of one operation, over its protocol.
type wire struct {
	t      *testing.T
	answer func(w http.ResponseWriter) // nil: well done
	bytes  int                         // of the last body, unpacked
	packed int                         // requests that came compressed
	inputs []cbor.Map
}

func (s *wire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/service/GraniteServiceVersion20100801/operation/PutMetricData" ||
		!strings.Contains(r.Header.Get("Authorization"), "/us-west-2/monitoring/aws4_request") {
		s.t.Errorf("%s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			s.t.Error(err)
			return
		}
		body = z
		s.packed++
	}
	b, err := io.ReadAll(body)
	if err != nil {
		s.t.Error(err)
	}
	s.bytes = len(b)
	in, err := cbor.Decode(b)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.inputs = append(s.inputs, in.(cbor.Map))
	w.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	w.Header().Set("Content-Type", "application/cbor")
	if s.answer != nil {
		s.answer(w)
		return
	}
	w.Write(cbor.Encode(cbor.Map{}))
}

// dialWire returns a Publisher that speaks to s, with n data in its queue.
func dialWire(t *testing.T, s *wire, n int) *Publisher {
	t.Helper()
	s.t = t
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_CLOUDWATCH": srv.URL, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_REGION": "us-west-2",
	} {
		t.Setenv(name, value)
	}
	p := New(Params{API: Dial(""), Namespace: "ECS/Connect", Bounds: bounds})
	p.ledger.began = true
	var snap Snapshot
	for i := range n {
		snap.Called = append(snap.Called, Called{
			DiscoveryName: fmt.Sprint("svc-", i), Time: Histogram{Counts: []uint64{1, 0, 3}, SumMicroseconds: 10500},
		})
	}
	at := time.Now().Round(0)
	p.queue.push(p.count(snap, at).data(bounds, at))
	return p
}

func TestWire(t *testing.T) {
	var s wire
	p := dialWire(t, &s, 900)
	estimate := 0
	for i := range p.queue.data {
		estimate += size(&p.queue.data[i])
	}
	at, first := *p.queue.data[0].Timestamp, *p.queue.data[0].Dimensions[0].Value
	if wait := p.send(t.Context()); wait != 0 || len(s.inputs) != 1 {
		t.Fatalf("%d requests, %+v", len(s.inputs), p.Stats())
	}
	if s.packed != 1 {
		t.Error("a large request came without compression")
	}
	if s.bytes > estimate || estimate > 4*s.bytes {
		t.Errorf("a body of %d bytes was estimated as %d", s.bytes, estimate)
	}
	in := s.inputs[0]
	data := in["MetricData"].(cbor.List)
	d := data[0].(cbor.Map)
	stamp, err := cbor.AsTime(d["Timestamp"])
	if err != nil {
		t.Fatal(err)
	}
	if off := stamp.Sub(at).Abs(); off > time.Millisecond {
		t.Errorf("stamp %s is off by %s", stamp, off)
	}
	dim := d["Dimensions"].(cbor.List)[0].(cbor.Map)
	got := fmt.Sprintln(in["Namespace"], len(data), d["MetricName"], d["Unit"], dim["Name"], dim["Value"], d["Values"], d["Counts"])
	if want := "ECS/Connect 900 TargetResponseTime Milliseconds TargetDiscoveryName " + first + " [0.6428571428571429 3.2857142857142856] [1 3]\n"; got != want {
		t.Errorf("sent %swant %s", got, want)
	}
}

// Errors as the service words them are judged right, and tried once.
func TestWireErrors(t *testing.T) {
	for _, test := range []struct {
		status int
		code   string
		want   verdict
	}{
		{400, "com.amazonaws.cloudwatch#InvalidParameterValueException", never},
		{400, "com.amazonaws.cloudwatch#MissingRequiredParameterException", never},
		{400, "Throttling", later},
		{400, "ThrottlingException", later},
		{403, "AccessDeniedException", later},
		{403, "ExpiredTokenException", later},
		{500, "com.amazonaws.cloudwatch#InternalServiceFault", later},
		{413, "RequestEntityTooLarge", tooLarge},
	} {
		s := wire{answer: func(w http.ResponseWriter) {
			w.WriteHeader(test.status)
			w.Write(cbor.Encode(cbor.Map{"__type": cbor.String(test.code), "message": cbor.String("because")}))
		}}
		p := dialWire(t, &s, 2)
		wait := p.send(t.Context())
		st := p.Stats()
		var got verdict
		switch {
		case st.Refused == 2 && wait == 0:
			got = never
		case st.Queued == 2 && wait == 0 && p.limit == 1:
			got = tooLarge
		case st.Queued == 2 && wait > 0:
			got = later
		default:
			t.Errorf("%s: %+v", test.code, st)
		}
		if got != test.want || len(s.inputs) != 1 {
			t.Errorf("%s: verdict %d after %d calls, want %d; %s", test.code, got, len(s.inputs), test.want, st.LastError)
		}
		if _, word, found := strings.Cut(test.code, "#"); found && !strings.Contains(st.LastError, word) ||
			!found && !strings.Contains(st.LastError, test.code) {
			t.Errorf("%s is not in the error: %s", test.code, st.LastError)
		}
	}
}

// Without a region nothing is sent and everything is kept, until there is one.
func TestNoRegion(t *testing.T) {
	var s wire
	p := dialWire(t, &s, 1)
	t.Setenv("AWS_REGION", "")
	if wait := p.send(t.Context()); wait == 0 || !strings.Contains(p.Stats().LastError, "Region") || p.Stats().Queued != 1 {
		t.Errorf("%+v", p.Stats())
	}
	t.Setenv("AWS_REGION", "us-west-2")
	if wait := p.send(t.Context()); wait != 0 || p.Stats().Sent != 1 {
		t.Errorf("a region that came later: %+v", p.Stats())
	}
}
