package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
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
	c := &cluster{TB: tb, w: testutil.NewWorld(tb), nodes: map[string]*member{}}
	c.cloud = aws.New(aws.Params{Seed: 1, MaxDelay: time.Second})
	c.namespace, _ = c.cloud.AddNamespace(aws.Namespace{Name: "prod"})
	c.at = c.w.Host("aws")
	for i, name := range names {
		m := &member{node: newNodeIn(tb, c.w, "node"+name), name: name, group: testutil.NewCgroup(tb)}
		if c.dns == nil {
			c.dns = m.upstream("outside.example")
		}
		who := aws.Caller{Label: name}
		server := aws.Start(c.at.Listen("tcp", at(c.at.Addr4(), 8000+i)), c.cloud, aws.NewNode(aws.NodeParams{
			Name: name, InstanceID: "i-" + name, Zone: "us-east-1a", ZoneID: "use1-az1", IPv4: m.host.Addr4().String(), Who: who,
		}))
		tb.Cleanup(server.Close)
		m.node.env = server.Env(who)
		m.client = c.w.Host("client" + name)
		m.client.ResolvConf("nameserver " + c.dns.Addr4().String() + "\n")
		m.node.client(m.client, "prod")
		m.extra = fmt.Sprintf("cgroup: %s\ncloudMap: {region: us-east-1, namespaces: [prod], pollSeconds: 2, callsPerSecond: 20}\n", m.group.Path())
		m.configure()
		m.catalog("  []\n")
		c.nodes[name] = m
	}
	return c
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

// gets is what a client saw that sent GET after GET.
type gets struct {
	OK      int
	Errors  map[string]int
	By      map[string]int // who answered, by body
	Slowest time.Duration
	Longest time.Duration // between two answers
}

// clientGet sends GETs from four workers until its input ends.
func clientGet(url string) (out gets) {
	out = gets{Errors: map[string]int{}, By: map[string]int{}}
	ended := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(ended) }()
	client := &http.Client{Transport: &http.Transport{DialContext: dialer().DialContext, MaxIdleConnsPerHost: 4}, Timeout: 20 * time.Second}
	var mu sync.Mutex
	last := time.Now()
	one := func() {
		begun := time.Now()
		status, body, err := get(client, url)
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		out.Slowest = max(out.Slowest, now.Sub(begun))
		switch {
		case err != nil:
			out.Errors[short(err)]++
		case status != http.StatusOK:
			out.Errors[fmt.Sprint(status)]++
		default:
			out.OK++
			out.By[body]++
			out.Longest = max(out.Longest, now.Sub(last))
			last = now
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(5 * time.Millisecond):
					one()
				}
			}
		})
	}
	wg.Wait()
	return out
}

// getting runs it on the node's client; stop ends it and returns what it saw.
func (m *member) getting(url string) (stop func() gets) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	m.Cleanup(cancel)
	cmd := m.client.Command(ctx, self, "get", url).In(m.group)
	cmd.Env = append(os.Environ(), clientEnv+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	end := sync.OnceValue(func() error { in.Close(); return <-done })
	m.Cleanup(func() { end() })
	return func() (out gets) {
		m.Helper()
		if err := end(); err != nil {
			m.Fatalf("client: %s: %s", err, &stderr)
		}
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			m.Fatal(err)
		}
		return out
	}
}
