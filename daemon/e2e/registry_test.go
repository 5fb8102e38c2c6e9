package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil"
	"connectd/pkg/testutil/aws"
)

// cluster is nodes that share an AWS.
type cluster struct {
	*shop
	cloud  *aws.Cloud
	server *aws.Server
}

func newCluster(t *testing.T, servers ...string) *cluster {
	s := newShop(t, servers...)
	c := &cluster{shop: s, cloud: aws.New(aws.Params{Seed: 1, MaxDelay: 500 * time.Millisecond})}
	c.cloud.AddNamespace(aws.Namespace{Name: "prod"})
	h := s.w.Host("aws")
	c.server = aws.Start(h.Listen("tcp", at(h.Addr4(), 80)), c.cloud, nil)
	t.Cleanup(func() { c.server.Close() })
	c.share(s.node, "a")
	return c
}

// share has a node use the cluster's AWS.
func (c *cluster) share(n *node, label string) {
	n.extra += "cloudMap: {region: us-east-1, namespaces: [prod], pollSeconds: 1, callsPerSecond: 50}\n"
	n.env = append(os.Environ(), c.server.Env(aws.Caller{Label: label})...)
	if err := os.MkdirAll(n.path("state"), 0o700); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(n.path("state/node-id"), []byte("i-"+label), 0o600); err != nil {
		n.Fatal(err)
	}
}

// other makes a second node with one client, which lists nothing itself.
func (c *cluster) other(name string) (*node, *testutil.Host) {
	c.Helper()
	dir, err := os.MkdirTemp("", "cde2e")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{TB: c.TB, w: c.w, host: c.w.Host(name), dir: dir, bpffs: testutil.BPFFS(c.TB)}
	h := c.w.Host(name + "web")
	h.ResolvConf("nameserver " + c.dns.Addr4().String() + "\n")
	n.client(h, "prod")
	c.share(n, name)
	n.write("catalog.yaml", "namespace: prod\nservices: []\n")
	n.configure()
	return n, h
}

// TestRegistry: what one node publishes another's clients reach by name, as it
// changes, and go on reaching while AWS is away, over a restart too.
func TestRegistry(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "one", "two")
	c.begin(service("orders", "publish: true", "one"))
	b, web := c.other("b")
	b.start()
	vip := b.vip(web, c.dns.Host, "orders")
	answers := func(want ...string) {
		t.Helper()
		b.eventually(15*time.Second, func() error {
			got := spread(web, "tcp", at(vip, 80), 8)
			for _, name := range want {
				if got[name] == 0 {
					return fmt.Errorf("answers %v, want %v", got, want)
				}
			}
			if len(got) != len(want) {
				return fmt.Errorf("answers %v, want %v", got, want)
			}
			return nil
		})
	}
	answers("one")
	c.catalog(service("orders", "publish: true", "one", "two"))
	answers("one", "two")

	b.eventually(10*time.Second, func() error { // what is known is on disk seconds later
		text, err := os.ReadFile(b.path("state/cloudmap.json"))
		if err == nil && !strings.Contains(string(text), c.endpoint("two").Addr().String()) {
			err = errors.New("the second endpoint is not kept yet")
		}
		return err
	})
	away := c.cloud.Outage()
	b.daemon.kill()
	b.start()
	answers("one", "two")
	c.catalog(service("orders", "publish: true", "two"))
	away()
	answers("two")
}
