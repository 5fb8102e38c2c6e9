// Command demo-cluster shows three nodes that share their services through
// Cloud Map, on one machine: make demo-cluster. AWS is that of the tests, which
// is why this is no command of connectd.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"connectd/daemon/demo"
	"connectd/pkg/testutil/aws"
)

func main() {
	binary := flag.String("connectd", "bin/connectd", "the program that the nodes run")
	verbose := flag.Bool("verbose", false, "show the daemons' logs as they are written")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := demo.RunCluster(ctx, os.Stdout, demo.Options{Binary: *binary, Verbose: *verbose}, newCloud()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cloud is the AWS that the nodes of the demo share.
type cloud struct {
	*aws.Cloud
	namespace string
}

func newCloud() *cloud {
	c := &cloud{Cloud: aws.New(aws.Params{Seed: 1, MaxDelay: time.Second})}
	c.namespace, _ = c.AddNamespace(aws.Namespace{Name: "prod"})
	return c
}

func (c *cloud) Serve(ln net.Listener, node, zone, address string) (env []string, end func()) {
	who := aws.Caller{Label: node}
	s := aws.Start(ln, c.Cloud, aws.NewNode(aws.NodeParams{
		Name: node, InstanceID: node, Zone: zone, ZoneID: "use1-az" + zone[len(zone)-1:], IPv4: address, Who: who,
	}))
	return s.Env(who), s.Close
}

func (c *cloud) AddECS(service string, at netip.AddrPort) {
	c.AddInstance(c.AddService(c.namespace, service, false), "0123456789abcdef0123456789abcdef", map[string]string{
		"AWS_INSTANCE_IPV4": at.Addr().String(), "AWS_INSTANCE_PORT": strconv.Itoa(int(at.Port())), "AVAILABILITY_ZONE": "us-east-1a",
		"ECS_CLUSTER_NAME": "old", "ECS_SERVICE_NAME": service, "ECS_TASK_DEFINITION_FAMILY": service,
	})
}

func (c *cloud) Weights(percent map[string]string) error {
	if !slices.Contains(c.Services(c.namespace), "cd--index") {
		return fmt.Errorf("write weights: there is no index")
	}
	c.AddInstance(c.AddService(c.namespace, "cd--index", false), "weights", percent)
	return nil
}

func (c *cloud) Instances(service string) []string {
	return slices.Sorted(maps.Keys(c.Cloud.Instances(c.namespace)[service]))
}
