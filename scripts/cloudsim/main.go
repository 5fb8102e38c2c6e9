// Command cloudsim works out what a fleet of nodes calls in AWS, and what that
// costs, by running the polling and registering code of each node, as it is,
// against a clock of its own and a Cloud Map in memory:
//
//	go run ./scripts/cloudsim -write docs/scale.md
//	go run ./scripts/cloudsim -nodes 60 -services 40 -tasks 6
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	write := flag.String("write", "", "write the report to this `file` instead of printing it")
	hours := flag.Float64("hours", 0.5, "simulated `hours`, after the start")
	own := fleetOf(0, 0)
	flag.IntVar(&own.nodes, "nodes", 0, "a fleet of your own: its `nodes`; without it the fleets of docs/scale.md")
	flag.IntVar(&own.services, "services", 100, "its `services`")
	flag.IntVar(&own.perService, "tasks", own.perService, "`tasks` of each service")
	flag.IntVar(&own.deploys, "deploys", own.deploys, "`deployments` of each service a day")
	flag.Float64Var(&own.calls, "calls", own.calls, "callsPerSecond of each node")
	flag.Parse()
	length := time.Duration(*hours * float64(time.Hour))
	list := scenarios(length)
	if own.nodes > 0 {
		list = []scenario{own.over(length)}
	}
	if err := run(*write, list); err != nil {
		fmt.Fprintln(os.Stderr, "cloudsim:", err)
		os.Exit(1)
	}
}

func run(write string, list []scenario) error {
	var results []result
	for _, sc := range list {
		begun := time.Now()
		r, err := simulate(context.Background(), sc)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d nodes, %d services: %s\n", sc.nodes, sc.services, time.Since(begun).Round(time.Second))
		results = append(results, r)
		if write != "" { // a long run that is cut short has written what it knows
			if err := os.WriteFile(write, []byte(report(results)), 0o644); err != nil {
				return err
			}
		}
	}
	if write == "" {
		fmt.Print(report(results))
	}
	return nil
}

// scenario is a fleet and what happens in it.
type scenario struct {
	nodes, services int
	perService      int           // tasks of each service
	demand          int           // services that the tasks of a node call
	deploys         int           // of each service, a day, evenly spread; tasks are replaced one by one
	each            time.Duration // from one replaced task to the next
	calls           float64       // callsPerSecond
	sample          int           // nodes that read; the others only register
	length          time.Duration // after the start
}

const (
	// large is from how many nodes on a fleet is sampled, and looked at for
	// half the time.
	large = 1000
	// startLength is the time after all nodes started at once, which is
	// looked at by itself.
	startLength = 10 * time.Minute
	// sampled is how many nodes read in a large fleet: what a node calls
	// depends on what it finds in Cloud Map, and on no other node's calls.
	sampled = 100
)

// fleetOf is one with the defaults.
func fleetOf(nodes, services int) scenario {
	return scenario{nodes: nodes, services: services, perService: 8, deploys: 4, each: 30 * time.Second, calls: 0.2}
}

// over sets how long the fleet is looked at, and how much of it.
func (sc scenario) over(length time.Duration) scenario {
	sc.demand, sc.sample, sc.length = min(20, sc.services), sc.nodes, length
	if sc.nodes >= large {
		sc.sample, sc.length = sampled, length/2
	}
	return sc
}

func scenarios(length time.Duration) (out []scenario) {
	for _, nodes := range []int{10, 200, 5000} {
		for _, services := range []int{20, 100, 500} {
			sc := fleetOf(nodes, services).over(length)
			if nodes == 10 {
				sc.perService = 2
			}
			out = append(out, sc)
			if nodes == 10 && services == 500 {
				sc.calls = 0.5
				out = append(out, sc)
			}
		}
	}
	return out
}
