// Command cloudsim works out what a fleet of nodes calls in AWS, and what that
// costs, by running the polling and registering code of each node, as it is,
// against a clock of its own and a Cloud Map in memory:
//
//	go run ./scripts/cloudsim -write docs/scale.md
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
	nodes := flag.Int("nodes", 0, "simulate only fleets of this `size`")
	flag.Parse()
	if err := run(*write, time.Duration(*hours*float64(time.Hour)), *nodes); err != nil {
		fmt.Fprintln(os.Stderr, "cloudsim:", err)
		os.Exit(1)
	}
}

func run(write string, length time.Duration, only int) error {
	var results []result
	for _, sc := range scenarios(length) {
		if only != 0 && sc.nodes != only {
			continue
		}
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

func scenarios(length time.Duration) (out []scenario) {
	for _, nodes := range []int{10, 200, 5000} {
		for _, services := range []int{20, 100, 500} {
			sc := scenario{nodes: nodes, services: services, perService: 8, demand: min(20, services), deploys: 4, each: 30 * time.Second, calls: 0.2, sample: nodes, length: length}
			if nodes == 10 {
				sc.perService = 2
			}
			if nodes >= large {
				sc.sample, sc.length = sampled, length/2
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
