package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"connectd/pkg/testutil"
	"connectd/pkg/testutil/aws"
)

// cluster is a few nodes in one world that share what they serve through one
// AWS. Each has its own bpffs directory, state, control socket and cgroup: its
// hooks see the processes of its own clients only, as on a machine of its own.
type cluster struct {
	testing.TB
	w         *testutil.World
	cloud     *aws.Cloud
	namespace string // id of prod
	at        *testutil.Host
	dns       *upstream
	nodes     map[string]*member
	accounts  int // machines that AWS was served to
}

// member is a node of a cluster, with one client.
type member struct {
	*node
	name   string
	group  *testutil.Cgroup
	client *testutil.Host
}

// newCluster makes nodes of these names and an AWS in which a change shows
// within a second; nothing runs yet.
func newCluster(tb testing.TB, names ...string) *cluster {
	tb.Helper()
	testutil.RequireRoot(tb)
	return newClusterIn(tb, testutil.NewWorld(tb), names...)
}

func newClusterIn(tb testing.TB, w *testutil.World, names ...string) *cluster {
	tb.Helper()
	c := &cluster{TB: tb, w: w, nodes: map[string]*member{}}
	c.cloud = aws.New(aws.Params{Seed: 1, MaxDelay: time.Second})
	c.namespace, _ = c.cloud.AddNamespace(aws.Namespace{Name: "prod"})
	c.at = c.w.Host("aws")
	for _, name := range names {
		c.join(w, name)
	}
	return c
}

// join makes a node in a world of the cluster.
func (c *cluster) join(w *testutil.World, name string) *member {
	c.Helper()
	m := &member{node: newNodeIn(c, w, "node"+name), name: name, group: testutil.NewCgroup(c)}
	if c.dns == nil {
		c.dns = m.upstream("outside.example")
	}
	m.node.env = c.account(name, m.host)
	m.client = w.Host("client" + name)
	m.client.ResolvConf("nameserver " + c.dns.Addr4().String() + "\n")
	m.node.client(m.client, "prod")
	m.extra = fmt.Sprintf("cgroup: %s\n%s", m.group.Path(), sharesProd)
	m.configure()
	m.catalog("  []\n")
	c.nodes[name] = m
	return m
}

const sharesProd = "cloudMap: {region: us-east-1, namespaces: [prod], pollSeconds: 2, callsPerSecond: 20}\n"

// account serves a machine AWS and its instance's metadata; env leads its
// daemon there.
func (c *cluster) account(name string, h *testutil.Host) (env []string) {
	c.Helper()
	who := aws.Caller{Label: name}
	c.accounts++
	server := aws.Start(c.at.Listen("tcp", at(c.at.Addr4(), 8000+c.accounts)), c.cloud, aws.NewNode(aws.NodeParams{
		Name: name, InstanceID: "i-" + name, Zone: "us-east-1a", ZoneID: "use1-az1", IPv4: h.Addr4().String(), Who: who,
	}))
	c.Cleanup(server.Close)
	return server.Env(who)
}

func (c *cluster) start() {
	c.Helper()
	for _, m := range c.nodes {
		m.start()
	}
}

// serve makes a host with a TCP server on port 8080 that says its name.
func (c *cluster) serve(name string) netip.AddrPort {
	h := c.w.Host(name)
	return h.ServeName(name, at(h.Addr4(), 8080))
}

// instances is what DiscoverInstances shows of a Cloud Map service, by id.
func (c *cluster) instances(service string) map[string]map[string]string {
	return c.cloud.Instances(c.namespace)[service]
}

// move writes the instance of the index that divides services between ECS and
// connectd, as docs say; nil takes it away.
func (c *cluster) move(percent map[string]string) {
	c.Helper()
	api := c.cloud.As(aws.Caller{Label: "operator"}).CloudMap
	list, err := api.ListServices(c.Context(), &sd.ListServicesInput{})
	if err != nil {
		c.Fatal(err)
	}
	i := slices.IndexFunc(list.Services, func(s sdtypes.ServiceSummary) bool { return *s.Name == "cd--index" })
	if i < 0 {
		c.Fatal("there is no index")
	}
	if percent == nil {
		_, err = api.DeregisterInstance(c.Context(), &sd.DeregisterInstanceInput{ServiceId: list.Services[i].Id, InstanceId: new("weights")})
	} else {
		_, err = api.RegisterInstance(c.Context(), &sd.RegisterInstanceInput{ServiceId: list.Services[i].Id, InstanceId: new("weights"), Attributes: percent})
	}
	if err != nil {
		c.Fatal(err)
	}
}

// catalog writes the services that the node publishes.
func (m *member) catalog(services ...string) {
	m.Helper()
	m.write("catalog.yaml", "namespace: prod\nservices:\n"+strings.Join(services, ""))
}

// published is a service for every node, on port 80.
func published(name, fields string, endpoints ...netip.AddrPort) string {
	text := service(name, "publish: true\n"+fields)
	for _, e := range endpoints {
		text += fmt.Sprintf("      - {address: %s, port: %d}\n", e.Addr(), e.Port())
	}
	if len(endpoints) == 0 {
		return strings.TrimSuffix(text, "    endpoints:\n")
	}
	return text
}

// resolve asks as a program of the node's client does.
func (m *member) resolve(name string) (netip.Addr, error) {
	found, err := runClient[[]string](m.client, m.group, "resolve", name)
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(found[0])
	if err == nil && !vips.Contains(a) {
		err = fmt.Errorf("%s resolves to %s on %s, want a VIP", name, a, m.name)
	}
	return a, err
}

// ask resolves a name and counts who answers at its port 80.
func (m *member) ask(name string, times int) (map[string]int, error) {
	vip, err := m.resolve(name)
	if err != nil {
		return nil, err
	}
	return runClient[map[string]int](m.client, m.group, "ask", "tcp", at(vip, 80), fmt.Sprint(times))
}

// answered waits until exactly these servers answer a name; it tries at least
// once, and returns how long it took.
func (m *member) answered(within time.Duration, name string, by ...string) time.Duration {
	m.Helper()
	begun := time.Now()
	m.eventually(within, func() error {
		got, err := m.ask(name, 6*len(by))
		if err != nil {
			return err
		}
		for _, server := range by {
			if got[server] == 0 {
				return fmt.Errorf("%s: %s is answered by %v, want by %v", m.name, name, got, by)
			}
		}
		if len(got) != len(by) {
			return fmt.Errorf("%s: %s is answered by %v, want by %v", m.name, name, got, by)
		}
		return nil
	})
	return time.Since(begun)
}
