package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"connectd/pkg/testutil/aws"
	"connectd/pkg/testutil/docker"
)

// account is an instance with an AWS to ask.
type account struct {
	*instance
	cloud     *aws.Cloud
	cluster   string // ARN
	self      string // ARN of the container instance
	namespace string // ARN of prod
}

func newAccount(t *testing.T) *account {
	i := newInstance(t)
	a := &account{instance: i, cloud: aws.New(aws.Params{Seed: 1})}
	who := aws.Caller{Account: docker.Account, Label: "node"}
	_, a.namespace = a.cloud.AddNamespace(aws.Namespace{Account: who.Account, Name: "prod"})
	a.cluster = a.cloud.PutCluster(types.Cluster{ClusterArn: new(a.cloud.ARN(aws.ServiceECS, who.Account, "cluster/shop")),
		ServiceConnectDefaults: &types.ClusterServiceConnectDefaults{Namespace: &a.namespace}})
	a.self = a.cloud.ARN(aws.ServiceECS, who.Account, "container-instance/shop/0123456789abcdef0123456789abcdef")
	a.cloud.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: &a.self})
	node := aws.NewNode(aws.NodeParams{Name: "node"})
	node.SetAgent(aws.AgentMetadata{Cluster: "shop", ContainerInstanceArn: &a.self, Version: "Amazon ECS Agent - v1.99.0"})
	server := aws.Start(i.host.Listen("tcp", "127.0.0.1:51678"), a.cloud, node)
	t.Cleanup(server.Close)
	i.env = server.Env(who)
	i.configureECS("introspection: " + server.URL)
	return a
}

// run starts a task that ECS knows of, of the service of its family's name.
func (a *account) run(id int, mode, family string, labels map[string]string, ports []types.PortMapping, cmd ...string) *docker.Task {
	a.Helper()
	a.cloud.PutTaskDefinition(types.TaskDefinition{TaskDefinitionArn: new(a.cloud.ARN(aws.ServiceECS, docker.Account, "task-definition/"+family+":1")),
		Family: &family, Revision: 1, ContainerDefinitions: []types.ContainerDefinition{{Name: new("main"), PortMappings: ports}}})
	s := docker.TaskSpec{ID: fmt.Sprintf("%032x", id), Cluster: "shop", NetworkMode: mode, Family: family,
		Containers: []docker.ContainerSpec{{Name: "main", Image: "app", Labels: labels, Cmd: cmd}}}
	t := a.spec(s)
	a.cloud.PutTask(types.Task{TaskArn: &t.ARN, ClusterArn: &a.cluster, Group: new("service:" + family + "-svc")})
	return t
}

// TestECSLookups: what labels leave open ECS is asked for, and what the
// instance's attributes say is obeyed, over a restart too.
func TestECSLookups(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.start()
	block := `{"enabled": true, "services": [{"portName": "p", "discoveryName": "orders", "clientAliases": [{"port": 80, "dnsName": "orders"}]}]}`
	mapping := []types.PortMapping{{Name: new("p"), ContainerPort: new(int32(8080)), AppProtocol: types.ApplicationProtocolHttp}}
	a.run(1, "awsvpc", "orders", map[string]string{"connectd.serviceConnect": block}, mapping, "serve", ":8080", "orders")
	a.active("prod/orders", 1)
	client := map[string]string{"connectd.serviceConnect": `{"enabled": true}`}
	caller := a.run(2, "awsvpc", "web", client, nil, "get", "http://orders/")
	if got := a.output(caller, "main"); got != "orders\n" {
		t.Errorf("ports and namespace by ECS: %q", got)
	}
	waiting := a.run(3, "awsvpc", "waiting", client, nil, "wait")

	t.Run("view", func(t *testing.T) {
		a.eventually(10*time.Second, func() error {
			list, err := a.control().Tasks(t.Context())
			if err != nil {
				return err
			}
			seen := ""
			for _, d := range list {
				seen += fmt.Sprintf("%s %s %s %s %v %v\n", d.Name, d.Kind, d.Family, d.Service, d.Namespaces, d.Problems)
			}
			for _, want := range []string{
				"orders/" + strings.Repeat("0", 31) + "1 ecs orders:1 orders-svc [prod] []\n",
				"waiting/" + strings.Repeat("0", 31) + "3 ecs waiting:1 waiting-svc [prod] []\n",
			} {
				if !strings.Contains(seen, want) {
					return fmt.Errorf("tasks are\n%swant among them %s", seen, want)
				}
			}
			return nil
		})
		out, code := a.cli("tasks")
		if code != 0 || !strings.Contains(out, "orders:1") || !strings.Contains(out, "orders-svc") {
			t.Errorf("connectd tasks: exit %d\n%s", code, out)
		}
		for _, call := range []string{"DescribeTaskDefinition", "DescribeClusters"} {
			if n := a.cloud.CallsOf(aws.Call{Service: aws.ServiceECS, Action: call}).Calls; n != 1 {
				t.Errorf("%d calls of %s, want 1", n, call)
			}
		}
	})
	t.Run("unknown", func(t *testing.T) {
		bad := a.spec(docker.TaskSpec{Cluster: "shop", NetworkMode: "awsvpc", Family: "nowhere", Containers: []docker.ContainerSpec{
			{Name: "main", Image: "app", Labels: map[string]string{"connectd.serviceConnect": block}, Cmd: []string{"serve", ":8080", "nowhere"}}}})
		a.problem(bad, "lookup_failed")
		if err := a.engine.StopTask(t.Context(), bad, 0); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("attributes", func(t *testing.T) {
		attribute := func(want string) {
			t.Helper()
			a.eventually(15*time.Second, func() error {
				if got := a.cloud.Attributes(a.self)["connectd.ready"]; got != want {
					return fmt.Errorf("connectd.ready is %q, want %q", got, want)
				}
				return nil
			})
		}
		set := func(attributes ...types.Attribute) {
			a.cloud.PutContainerInstance(types.ContainerInstance{ContainerInstanceArn: &a.self, Attributes: attributes})
		}
		isOff := func(want bool) {
			t.Helper()
			a.eventually(20*time.Second, func() error {
				if s := a.status(); s.Off.IsZero() == want {
					return fmt.Errorf("off since %s, want off: %v", s.Off, want)
				}
				return nil
			})
		}
		attribute("true")
		a.daemon.stop()
		attribute("")
		set(types.Attribute{Name: new("connectd.off"), Value: new("true")})
		a.start()
		isOff(true)
		if b := a.hosts(waiting, "main"); strings.Contains(b, "orders") {
			t.Errorf("off by attribute, the hosts file has\n%s", b)
		}
		a.daemon.stop()
		// What the attribute did it undoes, though another daemon is told.
		set()
		a.start()
		isOff(false)
		a.active("prod/orders", 1)
		attribute("true")

		a.cli("off")
		a.daemon.stop()
		a.start()
		attribute("true")
		isOff(true) // people said so, and the attribute did not
		a.cli("on")
		isOff(false)
	})
}
