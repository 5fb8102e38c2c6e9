package aws

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// debianCLI is where Debian's package awscli puts it. It stands on botocore,
// which shares no code with the Go SDK.
const debianCLI = "/usr/bin/aws"

// cli runs the AWS CLI and returns what it says; want is part of its error, ""
// if it shall succeed.
func (w *world) cli(want string, args ...string) map[string]any {
	w.t.Helper()
	// The name has no address: requests go to the proxy, and those with a
	// prefixed host too.
	cmd := exec.CommandContext(w.t.Context(), debianCLI, append([]string{"--endpoint-url", "http://aws.test", "--output", "json"}, args...)...)
	cmd.Env = append(slices.Concat(w.server.Env(Caller{Label: "cli"}), w.server.ProxyEnv()),
		"AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "HOME="+w.t.TempDir(), "PATH=/usr/bin:/bin")
	// The CLI takes an empty profile for one that is missing.
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return v == "AWS_PROFILE=" })
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case want != "" && (err == nil || !strings.Contains(stderr.String(), want)):
		w.t.Errorf("aws %s: %v %s, want %s", strings.Join(args, " "), err, &stderr, want)
	case want == "" && err != nil:
		w.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	out := make(map[string]any)
	if stdout.Len() > 0 && json.Unmarshal(stdout.Bytes(), &out) != nil {
		w.t.Fatalf("aws %s says %s", strings.Join(args, " "), &stdout)
	}
	return out
}

// at follows keys and positions into what the CLI said.
func at(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

// TestCLI checks the wire protocols against a client that is not the SDK.
func TestCLI(t *testing.T) {
	if _, err := os.Stat(debianCLI); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	w := newWorld(t, nil)

	w.cli("", "servicediscovery", "create-http-namespace", "--name", "prod")
	ns, _ := at(w.cli("", "servicediscovery", "list-namespaces"), "Namespaces", 0, "Id").(string)
	svc := w.cli("", "servicediscovery", "create-service", "--name", "cd--orders", "--namespace-id", ns)
	id, _ := at(svc, "Service", "Id").(string)
	w.cli("", "servicediscovery", "register-instance", "--service-id", id, "--instance-id", "task-1", "--attributes", "AWS_INSTANCE_IPV4=10.0.0.7,AWS_INSTANCE_PORT=8080")
	found := w.cli("", "servicediscovery", "discover-instances", "--namespace-name", "prod", "--service-name", "cd--orders")
	if at(found, "Instances", 0, "Attributes", "AWS_INSTANCE_PORT") != "8080" || at(found, "Instances", 0, "NamespaceName") != "prod" {
		t.Errorf("discover-instances says %v", found)
	}
	w.cli("ServiceNotFound", "servicediscovery", "get-service", "--id", "srv-nobody")

	cluster := w.PutCluster(types.Cluster{ClusterName: new("prod"), ServiceConnectDefaults: &types.ClusterServiceConnectDefaults{Namespace: &ns}})
	w.PutTask(types.Task{TaskArn: new(w.taskARN("prod", 1)), ClusterArn: &cluster, Group: new("service:orders"), CreatedAt: new(w.clock.Now())})
	if got := at(w.cli("", "ecs", "describe-clusters", "--clusters", "prod"), "clusters", 0, "serviceConnectDefaults", "namespace"); got != ns {
		t.Errorf("the default namespace is %v", got)
	}
	task := w.cli("", "ecs", "describe-tasks", "--cluster", "prod", "--tasks", w.taskARN("prod", 1))
	if created, _ := at(task, "tasks", 0, "createdAt").(string); at(task, "tasks", 0, "group") != "service:orders" || !strings.HasPrefix(created, w.clock.Now().Format("2006-")) {
		t.Errorf("describe-tasks says %v", task)
	}
	w.cli("ClusterNotFoundException", "ecs", "list-tasks", "--cluster", "nobody")

	w.cli("", "cloudwatch", "put-metric-data", "--namespace", "ECS/Connect", "--metric-data",
		`[{"MetricName":"TargetResponseTime","Unit":"Milliseconds","Values":[1.5,2],"Counts":[3,4],"Dimensions":[{"Name":"TargetDiscoveryName","Value":"orders"}]},{"MetricName":"RequestCount","Value":7}]`)
	got := w.Metrics()
	if len(got) != 1 || len(got[0].Data) != 2 || got[0].Data[0].Values[0] != 1.5 || got[0].Data[0].Counts[1] != 4 ||
		*got[0].Data[0].Dimensions[0].Value != "orders" || *got[0].Data[1].Value != 7 {
		t.Errorf("put-metric-data brought %+v", got)
	}
	w.cli("InvalidParameterValue", "cloudwatch", "put-metric-data", "--namespace", "AWS/ECS", "--metric-name", "x", "--value", "1")
	w.Inject(Fault{Code: CodeExpired})
	w.cli("ExpiredToken", "cloudwatch", "put-metric-data", "--namespace", "x", "--metric-name", "x", "--value", "1")
	w.cli("ExpiredTokenException", "ecs", "list-tasks")
	if n := w.CallsOf(Call{Caller: "cli"}); n.Calls != 13 {
		t.Errorf("the CLI made %d calls", n.Calls)
	}
}
