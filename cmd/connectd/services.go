package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

const serviceHelp = `

SERVICE is namespace/discoveryName, or discoveryName alone where only one
namespace has it.`

func (c *cli) servicesCommand() *cobra.Command {
	var filter control.ServiceFilter
	cmd := &cobra.Command{
		Use:   "services [SERVICE]",
		Short: "List services with their names, VIPs and endpoints",
		Long:  "List services with their names, VIPs and how many endpoints are in which state." + serviceHelp,
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter.Service = strings.Join(args, "")
			list, err := ask(c, func(daemon *control.Client) ([]control.Service, error) {
				return daemon.Services(cmd.Context(), filter)
			})
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) { writeServices(w, list) })
		},
	}
	cmd.Flags().StringVarP(&filter.Namespace, "namespace", "n", "", "only services of this namespace")
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func writeServices(w io.Writer, list []control.Service) {
	t := newTable(w, "SERVICE", "PORTS", "APP", "POLICY", "ENDPOINTS", "CONNS", "NOTE", "NAMES")
	for _, s := range list {
		t.row(s.Name, ports(s), app(s), s.Policy, counts(s.Endpoints), number(s.ActiveConnections), note(s.Panic, s.LastResort), names(s.Names))
	}
	t.flush()
}

// ports is "80,8080/tcp": all that clients may call it by.
func ports(s control.Service) string {
	var all []uint16
	for _, n := range s.Names {
		all = append(all, n.Ports...)
	}
	slices.Sort(all)
	return join(",", slices.Compact(all)) + "/" + s.Protocol
}

// app is "http", or "http/direct" where no forwarder is in between; "" is not
// known.
func app(s control.Service) string {
	if s.Mode == "direct" {
		return s.AppProtocol + "/" + s.Mode
	}
	return s.AppProtocol
}

func note(panics, lastResort bool) string {
	switch {
	case panics:
		return "PANIC"
	case lastResort:
		return "LAST RESORT"
	}
	return ""
}

// names is "orders=127.254.0.7 orders.prod=127.254.3.1".
func names(list []control.Name) string {
	var parts []string
	for _, n := range list {
		parts = append(parts, n.DNSName+"="+join(",", n.Addresses))
	}
	return strings.Join(parts, " ")
}

func (c *cli) endpointsCommand() *cobra.Command {
	var filter control.EndpointFilter
	cmd := &cobra.Command{
		Use:   "endpoints [SERVICE]",
		Short: "List endpoints with their state, and why and since when",
		Long:  "List endpoints with their state, and why and since when." + serviceHelp,
		Example: `  connectd endpoints orders
  connectd endpoints --state unhealthy,ejected`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter.Service = strings.Join(args, "")
			list, err := ask(c, func(daemon *control.Client) ([]control.Endpoint, error) {
				return daemon.Endpoints(cmd.Context(), filter)
			})
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) { c.writeEndpoints(w, list) })
		},
	}
	cmd.Flags().StringSliceVar(&filter.States, "state", nil, "only endpoints in one of these states")
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func (c *cli) writeEndpoints(w io.Writer, list []control.Endpoint) {
	t := newTable(w, "SERVICE", "ADDRESS", "STATE", "SINCE", "CONNS", "TOTAL", "FAILED", "WEIGHT", "ZONE", "PROBE", "REASON")
	for _, e := range list {
		t.row(e.Service, e.Address.String(), e.State, c.since(e.Since), number(e.ActiveConnections), number(e.TotalConnections),
			number(e.Failures), fmt.Sprint(e.Weight), e.Zone, c.probe(e), c.reason(e))
	}
	t.flush()
}

// probe is "healthy 2s ago", "" if none has finished.
func (c *cli) probe(e control.Endpoint) string {
	if e.LastProbe == nil {
		return ""
	}
	return e.Verdict + " " + ago(c.since(e.LastProbe.At))
}

// reason says why an endpoint is in its state, and when that ends.
func (c *cli) reason(e control.Endpoint) string {
	var parts []string
	if e.Reason != "" {
		parts = append(parts, e.Reason)
	}
	if !e.DrainDeadline.IsZero() {
		parts = append(parts, "ends "+c.until(e.DrainDeadline))
	}
	if !e.EjectedUntil.IsZero() {
		parts = append(parts, "back "+c.until(e.EjectedUntil))
	}
	if len(e.AvoidedBy) > 0 {
		parts = append(parts, "avoided by "+strings.Join(e.AvoidedBy, " and "))
	}
	if p := e.LastProbe; p != nil && p.Error != "" && !strings.Contains(e.Reason, p.Error) {
		parts = append(parts, "last probe: "+p.Error)
	}
	return strings.Join(parts, ", ")
}
