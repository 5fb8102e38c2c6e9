package main

import (
	"fmt"
	"strings"
	"time"
)

// Prices of us-east-1 in dollars, as AWS lists them; there is no free tier in
// them.
const (
	perMillion  = 1.00 // calls of DiscoverInstances and DiscoverInstancesRevision; others are free
	perInstance = 0.10 // registered instance, a month
	month       = 730 * time.Hour
)

// quotas are calls a second of an account in a region. Where AWS publishes
// none, 0.
var quotas = []struct {
	api, name string
	rate      float64
}{
	{"DiscoverInstancesRevision", "DiscoverInstancesRevision", 3000},
	{"DiscoverInstances", "DiscoverInstances", 1000},
	{"RegisterInstance", "RegisterInstance", 0},
	{"DeregisterInstance", "DeregisterInstance", 0},
	{"ListServices", "ListServices", 0},
	{"ecs:DescribeTasks", "DescribeTasks", 20},
	{"ecs:DescribeContainerInstances", "DescribeContainerInstances", 20},
}

// result is what one scenario came to. Counts are of the sampled nodes.
type result struct {
	scenario
	start, steady map[string]*count
	peakScale     float64
	instances     int
	delays        []time.Duration
}

func (r *result) rate(api string) float64 {
	if n := r.steady[api]; n != nil {
		return float64(n.all) / r.length.Seconds() * r.peakScale
	}
	return 0
}

func (r *result) peak(counts map[string]*count, api string) float64 {
	if n := counts[api]; n != nil {
		return float64(n.most) / window.Seconds() * r.peakScale
	}
	return 0
}

func (r *result) callDollars() float64 {
	return (r.rate("DiscoverInstances") + r.rate("DiscoverInstancesRevision")) * month.Seconds() / 1e6 * perMillion
}

func (r *result) instanceDollars() float64 { return float64(r.instances) * perInstance }

func (r *result) quantile(q float64) string {
	if len(r.delays) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f s", r.delays[min(len(r.delays)-1, int(q*float64(len(r.delays))))].Seconds())
}

func report(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, head, results[0].length)
	fmt.Fprintf(&b, "\n## Money\n\nDollars a month. CloudWatch is apart: see [metrics.md](metrics.md).\n\n")
	b.WriteString("| nodes | services | callsPerSecond | tasks | instances | calls, $ | instances, $ | sum, $ | a task is seen after: median | 95 % | 99 % |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "| %d | %d | %g | %d | %d | %.0f | %.0f | %.0f | %s | %s | %s |\n", r.nodes, r.services, r.calls, r.services*r.perService, r.instances,
			r.callDollars(), r.instanceDollars(), r.callDollars()+r.instanceDollars(), r.quantile(0.5), r.quantile(0.95), r.quantile(0.99))
	}
	b.WriteString("\n## Quotas\n\nCalls a second of the whole fleet: mean / busiest 10 s / busiest 10 s when all nodes start at once.\n\n| nodes | services | callsPerSecond |")
	for _, q := range quotas {
		fmt.Fprintf(&b, " %s |", q.name)
	}
	b.WriteString("\n|--:|--:|--:|")
	for range quotas {
		b.WriteString("--:|")
	}
	b.WriteString("\n| quota | | |")
	for _, q := range quotas {
		if q.rate == 0 {
			b.WriteString(" not published |")
		} else {
			fmt.Fprintf(&b, " %.0f |", q.rate)
		}
	}
	b.WriteString("\n")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "| %d | %d | %g |", r.nodes, r.services, r.calls)
		for _, q := range quotas {
			fmt.Fprintf(&b, " %s / %s / %s |", short(r.rate(q.api)), short(r.peak(r.steady, q.api)), short(r.peak(r.start, q.api)))
		}
		b.WriteString("\n")
	}
	b.WriteString(foot)
	return b.String()
}

func short(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 1:
		return fmt.Sprintf("%.2f", f)
	case f < 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}

const head = `# Quotas and money

Written by ` + "`go run ./scripts/cloudsim -write docs/scale.md`" + `, which runs the polling and registering code of every node, as it
is, on a clock of its own against a Cloud Map in memory. Defaults: ` + "`pollSeconds: 10`, `callsPerSecond: 0.2`" + `.

The fleet: every service has 8 tasks (2 where there are 10 nodes) and is deployed 4 times a day, a task every 30 s; each new
task is registered, each old one marked as draining, then deregistered. The tasks of a node call 20 services. All of it is in
one namespace. A registration shows within 5 s. Nodes start all at once, 10 minutes of which are counted apart; then comes what is counted:
%s, half of it for 5,000 nodes. Of those 100 read, and their calls are taken times 50: what a node calls depends on what it finds in Cloud Map, and on
no other node's calls. The others register what their tasks serve, so that there is as much to find.

Prices: $1.00 for a million calls of DiscoverInstances and DiscoverInstancesRevision, $0.10 for a registered instance a month;
other calls are free.
`

const foot = `
## What to make of it

- **Calls.** The polls of one namespace's index make up most of it: 0.1 calls a second for each node are 26 cents a month. A second namespace
  costs as much again. ` + "`callsPerSecond`" + ` is the most that a node spends: 0.2 are 53 cents a month.
- **Instances** cost 10 cents each, what Service Connect registers nothing. One is a task's port, or a node's entry in the index.
- **Large fleets.** Cloud Map allows 2,000 instances in a namespace, which AWS raises on demand, and 1,000 in a service, which it does not. From 800
  nodes on the index has more than one service, all of which are polled within the same budget, so changes are seen later. All nodes together
  stay below 600 calls a second, whatever the budget of each: more than 3,000 nodes slow down instead of being throttled. Split such
  fleets into namespaces.
- **Many services on few nodes** are bounded by ` + "`callsPerSecond`" + `, too: 200 calls can be saved up, which is enough for 100 tasks to start at once.
`
