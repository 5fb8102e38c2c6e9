package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/control"
)

func (d *demo) commandLine(ctx context.Context) error {
	for _, c := range []struct {
		args  []string
		lines int
	}{{[]string{"status"}, 6}, {[]string{"services"}, 8}, {[]string{"endpoints", "prod/orders"}, 5}, {[]string{"resolve", "orders", "--task", "web"}, 7}} {
		text, err := d.daemon.connectd(ctx, c.args...)
		if err != nil {
			return err
		}
		d.Say("connectd %s", strings.Join(c.args, " "))
		d.Show(text, c.lines)
	}
	s, err := ask[control.Status](ctx, d.daemon, "status")
	if err != nil {
		return err
	}
	if s.Verdict != control.VerdictOK {
		return fmt.Errorf("the verdict is %s: %v", s.Verdict, s.Problems)
	}
	list, err := ask[[]control.Resolution](ctx, d.daemon, "resolve", "orders", "--task", "web")
	if err != nil {
		return err
	}
	if len(list) != 1 || len(list[0].Targets) != 1 || list[0].Targets[0].Service != "prod/orders" || len(list[0].Targets[0].Endpoints) != 3 {
		return errors.New("resolve does not lead from orders to its three endpoints alone")
	}
	return nil
}

// sample is one series of a scrape: its name and labels as written, and value.
type sample struct {
	series string
	value  float64
}

func (d *demo) scrape(ctx context.Context) ([]sample, error) {
	text, err := d.daemon.fetch(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	var samples []sample
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := s.Text()
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("parse %q: %w", line, err)
		}
		samples = append(samples, sample{line[:i], value})
	}
	return samples, nil
}

// sum adds the series of a metric that have all these labels, written as in a
// scrape: service="orders".
func sum(samples []sample, metric string, labels ...string) (total float64) {
	for _, s := range samples {
		name, rest, _ := strings.Cut(s.series, "{")
		match := name == metric
		for _, l := range labels {
			match = match && strings.Contains(rest, l)
		}
		if match {
			total += s.value
		}
	}
	return total
}

func (d *demo) metrics(ctx context.Context) error {
	samples, err := d.scrape(ctx)
	if err != nil {
		return err
	}
	d.Say("http://%s/metrics has %d series", metricsAddr, len(samples))
	for _, m := range []struct {
		metric string
		labels []string
		says   string
		holds  func(float64) bool
	}{
		{"connectd_endpoint_connections_total", []string{`service="orders"`}, "connections opened to orders, since curl's 500", atLeast(500)},
		{"connectd_endpoint_active_connections", nil, fmt.Sprintf("connections open; %d are kept", d.held), atLeast(float64(d.held))},
		{"connectd_terminated_connections_total", nil, fmt.Sprintf("connections ended; %d were to be", d.terminated), equals(float64(d.terminated))},
		{"connectd_endpoint_received_bytes_total", []string{`service="orders"`}, "bytes from orders", atLeast(1000)},
		{"connectd_probes_total", []string{`result="success"`}, "health checks passed", atLeast(10)},
		{"connectd_probes_total", []string{`result="status"`}, "health checks answered with an error", atLeast(1)},
		{"connectd_dns_queries_total", []string{`outcome="answered"`}, "DNS queries answered", atLeast(5)},
		{"connectd_dns_queries_total", []string{`outcome="forwarded"`}, "DNS queries passed on", atLeast(5)},
		{"connectd_hook_outcomes_total", []string{`reason="translated"`}, "calls to a VIP that were sent to an endpoint", atLeast(500)},
		{"connectd_reconcile_errors_total", nil, "errors while writing to the kernel", equals(0)},
	} {
		got := sum(samples, m.metric, m.labels...)
		d.Say("%8.0f  %s: %s{%s}", got, m.says, m.metric, strings.Join(m.labels, ","))
		if !m.holds(got) {
			err = errors.Join(err, fmt.Errorf("%s{%s} is %v", m.metric, strings.Join(m.labels, ","), got))
		}
	}
	return err
}

func atLeast(want float64) func(float64) bool {
	return func(got float64) bool { return got >= want }
}

func equals(want float64) func(float64) bool {
	return func(got float64) bool { return got == want }
}

// opened is how many connections orders has had, by the metrics.
func (d *demo) opened(ctx context.Context) (n float64, err error) {
	err = report.Until(ctx, 5*time.Second, func() error {
		samples, err := d.scrape(ctx)
		if err != nil {
			return err
		}
		if n = sum(samples, "connectd_endpoint_connections_total", `service="orders"`); n == 0 {
			return errors.New("the metrics know no connections")
		}
		return nil
	})
	return n, err
}
