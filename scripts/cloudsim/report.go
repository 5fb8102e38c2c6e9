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

// Of instances: in a namespace, which AWS raises on request, and in a service.
const (
	namespaceInstances = 2000
	serviceInstances   = 1000
)

// result is what one scenario came to. Counts are of the sampled nodes.
type result struct {
	scenario
	start, steady map[string]*count
	peakScale     float64 // from the sampled nodes to all
	instances     int     // registered in the end
	largest       int     // of them in one service
	delays        []time.Duration
}

// rate is the mean, in calls a second of the fleet.
func (r *result) rate(api string) float64 {
	if n := r.steady[api]; n != nil {
		return float64(n.all) / r.length.Seconds() * r.peakScale
	}
	return 0
}

// peak is the busiest window, in calls a second of the fleet.
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

func (r *result) dollars() float64 { return r.callDollars() + r.instanceDollars() }

// broken lists what goes beyond a quota.
func (r *result) broken() (list []string) {
	for _, q := range quotas {
		if q.rate == 0 {
			continue
		}
		if most := max(r.rate(q.api), r.peak(r.steady, q.api)); most > q.rate {
			list = append(list, fmt.Sprintf("%s: %.0f calls a second of %.0f", q.name, most, q.rate))
		}
		if most := r.peak(r.start, q.api); most > q.rate {
			list = append(list, fmt.Sprintf("%s when all nodes start in the same second: %.0f calls a second of %.0f", q.name, most, q.rate))
		}
	}
	if r.instances > namespaceInstances {
		list = append(list, fmt.Sprintf("instances in the namespace: %d of %d, which can be raised", r.instances, namespaceInstances))
	}
	if r.largest > serviceInstances {
		list = append(list, fmt.Sprintf("instances in one service: %d of %d", r.largest, serviceInstances))
	}
	return list
}

// nearest is the API whose busiest time after the start comes nearest to its
// quota, and how near.
func (r *result) nearest() (api string, share float64) {
	for _, q := range quotas {
		if q.rate == 0 {
			continue
		}
		if s := r.peak(r.steady, q.api) / q.rate; s > share {
			api, share = q.name, s
		}
	}
	return api, share
}

func (r *result) quantile(q float64) string {
	if len(r.delays) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f s", r.delays[min(len(r.delays)-1, int(q*float64(len(r.delays))))].Seconds())
}

func (r *result) name() string { return fmt.Sprintf("| %d | %d | %g |", r.nodes, r.services, r.calls) }

func report(results []result) string {
	var b strings.Builder
	b.WriteString(head)
	answer(&b, results)
	fmt.Fprintf(&b, "\n## Money\n\nDollars a month, CloudWatch apart. *Seen* is how long after a new task is ready a node that calls its service has it.\n\n")
	b.WriteString("| nodes | services | callsPerSecond | tasks | instances | calls, $ | instances, $ | sum, $ | seen: median | 95 % | 99 % |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(&b, "%s %d | %d | %.0f | %.0f | %.0f | %s | %s | %s |\n", r.name(), r.services*r.perService, r.instances,
			r.callDollars(), r.instanceDollars(), r.dollars(), r.quantile(0.5), r.quantile(0.95), r.quantile(0.99))
	}
	rates(&b, results)
	b.WriteString(cloudWatch(results))
	fmt.Fprintf(&b, foot, results[0].length)
	return b.String()
}

// answer says in a line for each fleet what the tables come to.
func answer(b *strings.Builder, results []result) {
	for i := range results {
		r := &results[i]
		api, share := r.nearest()
		fmt.Fprintf(b, "- **%d nodes, %d services** (callsPerSecond %g): $%.0f a month; nearest to its quota comes %s with %.0f %%.", r.nodes, r.services, r.calls, r.dollars(), api, 100*share)
		for _, text := range r.broken() {
			fmt.Fprintf(b, " **Beyond a quota:** %s.", text)
		}
		b.WriteString("\n")
	}
}

func rates(b *strings.Builder, results []result) {
	b.WriteString("\n## Quotas\n\nCalls a second of the whole fleet: mean / busiest 10 s / busiest 10 s when all nodes start at once.\n\n| nodes | services | callsPerSecond |")
	rule, quota := "\n|--:|--:|--:|", "\n| quota | | |"
	for _, q := range quotas {
		fmt.Fprintf(b, " %s |", q.name)
		rule += "--:|"
		if q.rate == 0 {
			quota += " not published |"
		} else {
			quota += fmt.Sprintf(" %.0f |", q.rate)
		}
	}
	b.WriteString(rule + quota + "\n")
	for i := range results {
		r := &results[i]
		b.WriteString(r.name())
		for _, q := range quotas {
			fmt.Fprintf(b, " %s / %s / %s |", short(r.rate(q.api)), short(r.peak(r.steady, q.api)), short(r.peak(r.start, q.api)))
		}
		b.WriteString("\n")
	}
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

What a fleet calls in AWS, and what that costs. Written by ` + "`go run ./scripts/cloudsim -write docs/scale.md`" + `, which runs the
polling and registering code of every node, as it is, on a clock of its own against a Cloud Map in memory.

`

const foot = `
## What is assumed

- Defaults: ` + "`pollSeconds: 10`, `callsPerSecond: 0.2`" + `, one namespace. A second one costs its polls again.
- Every service has 8 tasks (2 where there are 10 nodes), anywhere in the fleet, and is deployed 4 times a day, a task every 30 s: the new
  one is registered, the old one marked as draining and 30 s later deregistered. The tasks of a node call 20 services, once a minute at least.
- A registration shows within 5 s, a call takes 50 ms.
- All nodes start in the same second, of which 10 minutes are counted apart; then comes what is counted: %s, half of it for 5,000 nodes.
- Of 5,000 nodes 100 read, and their calls are taken times 50: what a node calls depends on what it finds in Cloud Map, and on no other node's
  calls. The others register what their tasks serve, so that there is as much to find.
- $1.00 for a million calls of DiscoverInstances and DiscoverInstancesRevision, $0.10 for a registered instance a month; other calls of Cloud Map and
  ECS are free. Prices of us-east-1 without a free tier.

For a fleet of your own: ` + "`go run ./scripts/cloudsim -nodes 60 -services 40 -tasks 6 -deploys 10`" + `.

## What to make of it

- **Calls.** The polls of a namespace's index make up most of it: 0.1 calls a second for each node are 26 cents a month.
  ` + "`callsPerSecond`" + ` is the most that a node spends: 0.2 are 53 cents a month.
- **Instances** cost 10 cents each, where Service Connect's own are free. One is a task's port, or a node's entry in the index.
- **Large fleets.** Cloud Map allows 2,000 instances in a namespace, which AWS raises on request, and 1,000 in a service, which it does not. From 800
  nodes on the index has more than one service, all of which are polled within the same budget, so changes are seen later. All nodes together
  stay below 600 calls a second, whatever the budget of each: more than 3,000 nodes slow down instead of being throttled. Started in the same second they
  would be throttled for a while, which the simulation counts and does not refuse; a node that is throttled backs off and goes on with what it
  has. Split such fleets into namespaces.
- **Bytes are not counted here.** Each change of the index is read whole by every node. A first estimate for 200 nodes with 100 services is 2.7 TB a
  month, which AWS bills where it passes a NAT gateway: about $120 at $0.045 a GB.
- **Many services on few nodes** are bounded by ` + "`callsPerSecond`" + `, too: 200 calls can be saved up, which is enough for 100 tasks to start at once.
`
