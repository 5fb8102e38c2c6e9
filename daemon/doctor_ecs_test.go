package daemon

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"connectd/pkg/control"
)

// serveUnix answers GET requests by the end of their path.
func serveUnix(t *testing.T, answers map[string]string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for end, body := range answers {
			if strings.HasSuffix(r.URL.Path, end) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, body)
				return
			}
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return path
}

// TestDoctorECS: doctor asks Docker and the agent, and says what their absence
// means.
func TestDoctorECS(t *testing.T) {
	answer := ""
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	defer agent.Close()
	docker := "unix://" + serveUnix(t, map[string]string{"/_ping": "OK", "/version": `{"Version": "27.1.2", "ApiVersion": "1.46", "MinAPIVersion": "1.24"}`})
	mute := "unix://" + serveUnix(t, nil)
	const registered = `{"Cluster": "main", "ContainerInstanceArn": "arn:aws:ecs:us-east-1:1:container-instance/main/1", "Version": "1.80.0"}`
	const nobody = "http://127.0.0.1:1"
	type check struct {
		severity control.Severity
		detail   string
	}
	for name, test := range map[string]struct {
		config ECS
		answer string
		want   [2]check // of docker, of the agent
	}{
		"well": {ECS{Cluster: ecsAuto, Docker: docker, Introspection: agent.URL}, registered,
			[2]check{{control.SeverityOK, "version 27.1.2 answers at " + docker}, {control.SeverityOK, "version 1.80.0 in cluster main"}}},
		"an ARN": {ECS{Cluster: "arn:aws:ecs:us-east-1:1:cluster/main", Docker: docker, Introspection: agent.URL}, registered,
			[2]check{{control.SeverityOK, "27.1.2"}, {control.SeverityOK, "cluster main"}}},
		"another cluster": {ECS{Cluster: "test", Docker: docker, Introspection: agent.URL}, registered,
			[2]check{{control.SeverityOK, "27.1.2"}, {control.SeverityWarn, "the agent is in cluster main, the config says test"}}},
		"not registered": {ECS{Cluster: ecsAuto, Docker: docker, Introspection: agent.URL}, `{"Cluster": "main", "Version": "1.80.0"}`,
			[2]check{{control.SeverityOK, "27.1.2"}, {control.SeverityWarn, "has not registered this node with cluster main yet"}}},
		"away": {ECS{Cluster: ecsAuto, Docker: "unix:///nonexistent/docker.sock", Introspection: nobody}, "",
			[2]check{{control.SeverityFail, "/nonexistent/docker.sock"}, {control.SeverityWarn, "connection refused"}}},
		"others": {ECS{Cluster: ecsAuto, Docker: mute, Introspection: agent.URL}, "hello",
			[2]check{{control.SeverityFail, "ask docker"}, {control.SeverityWarn, "ask ECS agent: read answer"}}},
	} {
		answer = test.answer
		x := &examination{}
		x.ecs(t.Context(), &Config{ECS: &test.config})
		if len(x.checks) != 2 || x.checks[0].Name != "docker" || x.checks[1].Name != "ECS agent" {
			t.Errorf("%s: %+v", name, x.checks)
			continue
		}
		for k, want := range test.want {
			got := x.checks[k]
			if got.Severity != want.severity || !strings.Contains(got.Detail, want.detail) {
				t.Errorf("%s: %s is %s: %q, want %s: %q", name, got.Name, got.Severity, got.Detail, want.severity, want.detail)
			}
			if (got.Fix == "") != (got.Severity == control.SeverityOK) {
				t.Errorf("%s: %s is %s, the fix is %q", name, got.Name, got.Severity, got.Fix)
			}
		}
	}
	x := &examination{}
	if x.ecs(t.Context(), &Config{}); len(x.checks) != 0 {
		t.Errorf("without ecs in the config: %+v", x.checks)
	}
}
