package cloudmap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectd/pkg/testutil/aws"
)

// TestChaos: nodes whose tasks come and go, that restart with and without
// their state, while Cloud Map is slow, one revision stale, throttles, resets
// and is away. Afterwards it holds what is served and nothing else, and every
// node sees that.
func TestChaos(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, 8*time.Second, func(p *aws.Params) { p.Seed, p.Stale = seed, 0.2 })
			offers := map[*node][]Offer{}
			services := []string{"orders", "cart", "pay"}
			dirs := map[*node]string{}
			var nodes []*node
			for i := range 5 {
				dir := t.TempDir()
				n := w.node(fmt.Sprintf("i-%d", i), func(p *Params) { p.StateDir, p.CallsPerSecond = dir, 1 })
				dirs[n] = dir
				nodes = append(nodes, n)
			}
			var ends []func()
			for step := range 150 {
				n := nodes[random.IntN(len(nodes))]
				switch random.IntN(10) {
				case 0, 1, 2:
					o := n.offer(fmt.Sprintf("t%d", step), services[random.IntN(3)])
					o.V4 = addr4(10, byte(n.index), byte(step>>8), byte(step))
					offers[n] = append(offers[n], o)
				case 3, 4:
					if k := len(offers[n]); k > 0 {
						i := random.IntN(k)
						offers[n][i].State = []State{Healthy, Unhealthy, Draining}[random.IntN(3)]
					}
				case 5, 6:
					if k := len(offers[n]); k > 0 {
						offers[n] = slices.Delete(slices.Clone(offers[n]), 0, 1)
					}
				case 7:
					if random.IntN(3) > 0 {
						n.save(true)
					}
					n.start(func(p *Params) { p.StateDir, p.CallsPerSecond = dirs[n], 1 })
					n.Offer(nil, false)
				case 8:
					kind := []aws.FaultKind{aws.Throttle, aws.Reset, aws.Broken}[random.IntN(3)]
					action := []string{"", "DiscoverInstances", "RegisterInstance", "DeregisterInstance"}[random.IntN(4)]
					ends = append(ends, w.cloud.Inject(aws.Fault{Call: aws.Call{Service: aws.ServiceCloudMap, Action: action}, Kind: kind, Count: 1 + random.IntN(20)}))
				case 9:
					for _, m := range nodes {
						for _, name := range services {
							m.Demand(name, []string{"prod"})
						}
					}
				}
				n.Offer(slices.Clone(offers[n]), true)
				w.run(time.Duration(random.IntN(20_000)) * time.Millisecond)
			}
			for _, end := range ends {
				end()
			}
			for _, n := range nodes {
				for i := range offers[n] {
					offers[n][i].State = Healthy
				}
				n.Offer(offers[n], true)
			}
			w.within(30*time.Minute, "everything is as it should be", func() bool {
				for _, n := range nodes {
					for _, name := range services {
						n.Demand(name, []string{"prod"})
					}
				}
				for _, name := range services {
					var want []string
					for _, list := range offers {
						for _, o := range list {
							if o.Service.Name.DiscoveryName == name {
								want = append(want, o.ID)
							}
						}
					}
					slices.Sort(want)
					if !slices.Equal(w.registered("cd--"+name), want) {
						return false
					}
					for _, n := range nodes {
						if n.show(name) != expected(offers, n, name) {
							return false
						}
					}
				}
				return true
			})
		})
	}
}

// expected is what a node should see of a service: what the others serve.
func expected(offers map[*node][]Offer, of *node, service string) string {
	var out []string
	any := false
	for n, list := range offers {
		for _, o := range list {
			if o.Service.Name.DiscoveryName != service {
				continue
			}
			any = true
			if n != of {
				out = append(out, o.V4.String()+":8080")
			}
		}
	}
	slices.SortFunc(out, compareAddresses)
	if !any && of.show(service) == "-" {
		return "-" // nobody ever had it
	}
	return strings.Join(out, " ")
}
