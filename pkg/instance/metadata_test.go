package instance

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// logged gathers log messages.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.MessageKey {
			return a
		}
		return slog.Attr{}
	}}))
}

// expect compares the messages since it was last called.
func (l *logged) expect(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []string
	for line := range strings.Lines(l.text.String()) {
		got = append(got, strings.Trim(strings.TrimPrefix(strings.TrimSpace(line), "msg="), `"`))
	}
	l.text.Reset()
	if !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

// imdsv2 is an instance metadata service that wants a token.
type imdsv2 struct {
	mu     sync.Mutex
	token  string
	refuse int               // status of every token; 0 is none
	status int               // of every answer; 0 is as found
	texts  map[string]string // by path
	bare   int               // questions without the token
}

func (s *imdsv2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.URL.Path == "/latest/api/token":
		if s.refuse != 0 || r.Method != http.MethodPut || r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			w.WriteHeader(max(s.refuse, 400))
			return
		}
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		w.Write([]byte(s.token))
	case r.Header.Get("X-aws-ec2-metadata-token") != s.token:
		s.bare++
		w.WriteHeader(http.StatusUnauthorized)
	case s.status != 0:
		w.WriteHeader(s.status)
	case s.texts[r.URL.Path] == "":
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Write([]byte(s.texts[r.URL.Path]))
	}
}

func (s *imdsv2) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func serve(t *testing.T) *imdsv2 {
	t.Helper()
	s := &imdsv2{token: "secret", texts: map[string]string{
		"/latest/dynamic/instance-identity/document": `{"region": "eu-west-1", "accountId": "123456789012", "instanceId": "i-0abc",
			"availabilityZone": "eu-west-1b", "privateIp": "10.0.3.9"}`,
		"/latest/meta-data/placement/availability-zone-id": "euw1-az2",
	}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", srv.URL)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	return s
}

func TestIMDS(t *testing.T) {
	s := serve(t)
	w := New(Params{})
	id, err := w.Identity(t.Context())
	want := Identity{
		Region: "eu-west-1", AccountID: "123456789012", InstanceID: "i-0abc", Zone: "eu-west-1b", ZoneID: "euw1-az2",
		IPv4: netip.MustParseAddr("10.0.3.9"),
	}
	if err != nil || id != want {
		t.Errorf("%+v, %v", id, err)
	}
	look := func(reason string) {
		t.Helper()
		if err := w.look(t.Context()); err != nil {
			t.Errorf("look: %s", err)
		}
		if leaving, got := w.Leaving(); got != reason || leaving != (reason != "") {
			t.Errorf("leaving %v %q, want %q", leaving, got, reason)
		}
	}
	look("")
	s.change(func() { s.texts["/latest/meta-data/autoscaling/target-lifecycle-state"] = "Warmed:Stopped" })
	look("autoscaling: target state is Warmed:Stopped")
	s.change(func() {
		s.texts["/latest/meta-data/spot/instance-action"] = `{"action": "stop", "time": "2026-11-28T12:00:00Z"}`
	})
	look("spot: interruption: stop at 2026-11-28T12:00:00Z")

	// A token that is no good any more costs one look, and nothing known.
	s.change(func() { s.token = "another" })
	if err := w.look(t.Context()); err == nil {
		t.Error("an answer without a good token")
	}
	look("spot: interruption: stop at 2026-11-28T12:00:00Z")

	for _, status := range []int{403, 500, 503} {
		s.change(func() { s.status = status })
		if err := w.look(t.Context()); err == nil || !strings.Contains(err.Error(), "get instance metadata spot/instance-action") {
			t.Errorf("status %d: %v", status, err)
		}
	}
	if leaving, _ := w.Leaving(); !leaving {
		t.Error("errors took a notice back")
	}
	s.change(func() { s.status = 0; clear(s.texts) })
	look("")
}

// What knows no tokens is not asked without: its 404 says nothing of notices.
func TestTokenIsRequired(t *testing.T) {
	s := serve(t)
	for _, status := range []int{400, 403, 404, 405, 500} {
		s.change(func() { s.refuse, s.token = status, "" })
		w := New(Params{})
		if err := w.look(t.Context()); err == nil {
			t.Errorf("token refused with %d: no error", status)
		}
		if _, err := w.Identity(t.Context()); err == nil {
			t.Errorf("token refused with %d: an identity", status)
		}
	}
	if s.bare != 0 {
		t.Errorf("%d questions without a token", s.bare)
	}
}

func TestIMDSDisabled(t *testing.T) {
	s := serve(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	w := New(Params{})
	if err := w.look(t.Context()); err == nil {
		t.Error("no error")
	}
	if _, err := w.Identity(t.Context()); err == nil || s.bare != 0 {
		t.Errorf("identity: %v", err)
	}
}
