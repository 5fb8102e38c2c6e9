package aws

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/smithy-go/middleware"
)

// do sends a request on a connection of its own.
func do(t *testing.T, r *http.Request) (status int, body string) {
	t.Helper()
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (w *world) request(method, path string, header ...string) (status int, body string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return do(w.t, r)
}

// TestTokens: IMDS answers nothing without a token that is still good.
func TestTokens(t *testing.T) {
	w := newWorld(t, nil)
	const path = "/latest/meta-data/instance-id"
	want := func(what string, want int, header ...string) {
		t.Helper()
		if status, _ := w.request(http.MethodGet, path, header...); status != want {
			t.Errorf("%s: status %d, want %d", what, status, want)
		}
	}
	want("without a token", 401)
	want("with another token", 401, tokenHeader, "x")
	status, _ := w.request(http.MethodPut, "/latest/api/token", ttlHeader, "21601")
	if status != 400 {
		t.Errorf("a token for more than 6 h: status %d", status)
	}
	if status, _ = w.request(http.MethodPut, "/latest/api/token", ttlHeader, "60", "X-Forwarded-For", "10.0.0.1"); status != 403 {
		t.Errorf("a token by way of a proxy: status %d", status)
	}
	_, token := w.request(http.MethodPut, "/latest/api/token", ttlHeader, "60")
	want("with a token", 200, tokenHeader, token)
	w.clock.Advance(time.Minute)
	want("with an old token", 401, tokenHeader, token)
}

// TestIMDS: what the SDK's client reads, and what changes.
func TestIMDS(t *testing.T) {
	w := newWorld(t, nil)
	client := imds.NewFromConfig(w.config(Caller{}))
	get := func(path string) string {
		t.Helper()
		out, err := client.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: path})
		if err != nil {
			return err.Error()
		}
		b, err := io.ReadAll(out.Content)
		if err != nil {
			t.Fatal(err)
		}
		out.Content.Close()
		return string(b)
	}
	for path, want := range map[string]string{
		"instance-id":                        "i-0123456789abcdef0",
		"local-ipv4":                         "10.0.0.1",
		"placement/availability-zone":        "us-east-1a",
		"placement/availability-zone-id":     "use1-az1",
		"placement/":                         "availability-zone\navailability-zone-id\nregion",
		"autoscaling/target-lifecycle-state": "InService",
		"iam/security-credentials/":          "ecsInstanceRole",
	} {
		if got := get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if got := get("spot/instance-action"); !strings.Contains(got, "404") {
		t.Errorf("an interruption that nobody announced is %q", got)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w.node.SpotInterruption(at)
	w.node.Rebalance(at)
	w.node.LifecycleState("Terminated")
	w.node.ForgetTokens() // the client gets another
	if got := get("spot/instance-action"); got != `{"action":"terminate","time":"2026-01-02T03:04:05Z"}` {
		t.Errorf("an interruption is %q", got)
	}
	if got := get("events/recommendations/rebalance"); got != `{"noticeTime":"2026-01-02T03:04:05Z"}` {
		t.Errorf("a rebalance notice is %q", got)
	}
	if got := get("autoscaling/target-lifecycle-state"); got != "Terminated" {
		t.Errorf("lifecycle state is %q", got)
	}
	region, err := client.GetRegion(t.Context(), &imds.GetRegionInput{})
	if err != nil || region.Region != DefaultRegion {
		t.Errorf("region is %+v, %v", region, err)
	}
	if n := w.CallsOf(Call{Service: ServiceIMDS, Action: "/latest/api/token", Caller: "a"}); n.Calls != 2 {
		t.Errorf("the SDK asked for %d tokens", n.Calls)
	}
}

// TestRole: a daemon without keys calls with those of its instance's role, and
// finds its region there.
func TestRole(t *testing.T) {
	w := newWorld(t, nil)
	w.config(Caller{})
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithEC2IMDSRegion())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil || keys.AccessKeyID != (Caller{Label: "role"}).AccessKey() || cfg.Region != DefaultRegion {
		t.Errorf("keys are %s in %s, %v", keys.AccessKeyID, cfg.Region, err)
	}
}

// TestAgent: the agent's introspection.
func TestAgent(t *testing.T) {
	w := newWorld(t, nil)
	w.node.SetAgent(AgentMetadata{Cluster: "prod", Version: "Amazon ECS Agent - v1.105.1"})
	w.node.SetTasks([]AgentTask{{Arn: "arn:1", KnownStatus: "RUNNING", Family: "f", Version: "3", Containers: []AgentContainer{{DockerId: "abc", Name: "app"}}}, {Arn: "arn:2"}})
	if _, body := w.request(http.MethodGet, "/v1/metadata"); body != `{"Cluster":"prod","ContainerInstanceArn":null,"Version":"Amazon ECS Agent - v1.105.1"}`+"\n" {
		t.Errorf("metadata are %s", body)
	}
	var all struct{ Tasks []AgentTask }
	_, body := w.request(http.MethodGet, "/v1/tasks")
	if err := json.Unmarshal([]byte(body), &all); err != nil || len(all.Tasks) != 2 || all.Tasks[0].Containers[0].DockerId != "abc" {
		t.Errorf("tasks are %s", body)
	}
	for _, query := range []string{"?taskarn=arn:1", "?dockerid=abc"} {
		var one AgentTask
		_, body := w.request(http.MethodGet, "/v1/tasks"+query)
		if err := json.Unmarshal([]byte(body), &one); err != nil || one.Version != "3" {
			t.Errorf("%s is %s", query, body)
		}
	}
	if status, _ := w.request(http.MethodGet, "/v1/tasks?dockerid=x"); status != 404 {
		t.Errorf("a container that is not there: status %d", status)
	}
	remove := w.Inject(Fault{Call: Call{Service: ServiceAgent}, Kind: Broken})
	if status, _ := w.request(http.MethodGet, "/v1/metadata"); status != 500 {
		t.Errorf("a broken agent: status %d", status)
	}
	remove()
}

// TestHostPrefix: why clients of an endpoint that is an address need
// noHostPrefix.
func TestHostPrefix(t *testing.T) {
	w := newWorld(t, nil)
	for _, test := range []struct {
		prefix  string
		options []func(*middleware.Stack) error
	}{{"data-", nil}, {"", []func(*middleware.Stack) error{noHostPrefix}}} {
		var host string
		client := sd.NewFromConfig(w.config(Caller{}), func(o *sd.Options) {
			o.APIOptions = append(o.APIOptions, test.options...)
			o.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
				host = r.URL.Host
				return nil, io.ErrUnexpectedEOF
			})
		})
		client.DiscoverInstances(t.Context(), &sd.DiscoverInstancesInput{NamespaceName: new("n"), ServiceName: new("s")})
		if want := test.prefix + strings.TrimPrefix(w.server.URL, "http://"); host != want {
			t.Errorf("the SDK calls %q, want %q", host, want)
		}
	}
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }
