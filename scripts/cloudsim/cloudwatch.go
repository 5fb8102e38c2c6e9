package main

import (
	"fmt"
	"strings"

	"connectd/pkg/metrics/cloudwatch"
)

// CloudWatch's prices of us-east-1 in dollars: a custom metric a month, by how
// many there are, and calls of PutMetricData.
var metricPrices = []struct {
	upTo  float64
	price float64
}{{10_000, 0.30}, {250_000, 0.10}, {1_000_000, 0.05}}

const (
	abovePrice   = 0.02
	perMillePuts = 0.01
	// callers is how many ECS services call each service, and have series of
	// their own by that.
	callers = 4
)

// selections are values of cloudWatch.metrics.
var selections = []struct {
	name  string
	names []string
}{
	{"all", cloudwatch.Names()},
	{"`[RequestCount, HTTPCode_Target_5XX_Count, TargetResponseTime]`", []string{"RequestCount", "HTTPCode_Target_5XX_Count", "TargetResponseTime"}},
	{"`[HTTPCode_Target_5XX_Count]`", []string{"HTTPCode_Target_5XX_Count"}},
}

// seriesOf is how many custom metrics one HTTP service makes: each metric by
// discovery name, and by the ECS service that serves it or by each that calls
// it. Metrics of TLS and gRPC are never sent for it.
func seriesOf(names []string) (n int) {
	for _, name := range names {
		switch {
		case strings.Contains(name, "TLS") || strings.HasPrefix(name, "Grpc"):
		case strings.Contains(name, "Target"):
			n += 1 + callers
		default:
			n += 2
		}
	}
	return n
}

// seriesDollars is what so many custom metrics cost a month.
func seriesDollars(n float64) (dollars float64) {
	from := 0.0
	for _, p := range metricPrices {
		dollars += max(0, min(n, p.upTo)-from) * p.price
		from = p.upTo
	}
	return dollars + max(0, n-from)*abovePrice
}

// putDollars is what a call a minute of each node costs a month; what a node
// has to say of its services fits into one.
func putDollars(nodes int) float64 {
	return float64(nodes) * month.Minutes() / 1000 * perMillePuts
}

func cloudWatch(results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## CloudWatch\n\nOff by default. A custom metric is billed for each set of dimensions, whatever the number of nodes that send it. Dollars a month for services\n"+
		"of HTTP that %d ECS services call each, every hour, with statuses from 2xx to 5xx; calls are one a minute from each node.\n\n| nodes | services | calls, $ |", callers)
	rule := "\n|--:|--:|--:|"
	for _, s := range selections {
		fmt.Fprintf(&b, " metrics: %s, series | $ |", s.name)
		rule += "--:|--:|"
	}
	b.WriteString(rule + "\n")
	last := ""
	for i := range results {
		r := &results[i]
		line := fmt.Sprintf("| %d | %d | %.0f |", r.nodes, r.services, putDollars(r.nodes))
		for _, s := range selections {
			n := r.services * seriesOf(s.names)
			line += fmt.Sprintf(" %d | %.0f |", n, seriesDollars(float64(n)))
		}
		if line != last { // a fleet with another callsPerSecond costs as much
			b.WriteString(line + "\n")
		}
		last = line
	}
	return b.String()
}
