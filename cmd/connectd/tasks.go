package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

const taskHelp = `

TASK is the name of a task, or the last part of its ARN.`

func (c *cli) tasksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tasks",
		Short: "List the tasks of this node, and what is wrong with them",
		Long: `List the tasks of this node with the namespaces they may use, and why one is not
served.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(c, func(daemon *control.Client) ([]control.TaskDetail, error) { return daemon.Tasks(cmd.Context()) })
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) { writeTasks(w, list) })
		},
	}
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func writeTasks(w io.Writer, list []control.TaskDetail) {
	t := newTable(w, "TASK", "KIND", "MODE", "FAMILY", "SERVICE", "NAMESPACES", "RESOLVERS", "CONNS", "ATTACHED", "PROBLEMS")
	for _, d := range list {
		yes := "yes"
		if !d.Attached {
			yes = "NO"
		}
		t.row(d.Name, d.Kind, d.Mode, d.Family, d.Service, join(",", d.Namespaces), join(",", d.Resolvers), number(d.Connections),
			yes, strings.Join(d.Problems, "; "))
	}
	t.flush()
}

func (c *cli) connectionsCommand() *cobra.Command {
	var filter control.ConnectionFilter
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "List the connections of tasks, and where they lead",
		Long: fmt.Sprintf(`List the connections that tasks have to services: the name and VIP that the
application sees, the endpoint that it is connected to, and what has been sent
and received. At most %d are shown.`, control.MaxConnections) + taskHelp + serviceHelp,
		Example: `  connectd connections --task web
  connectd connections --service prod/orders`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(c, func(daemon *control.Client) (*control.Connections, error) {
				return daemon.Connections(cmd.Context(), filter)
			})
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) { c.writeConnections(w, list) })
		},
	}
	cmd.Flags().StringVarP(&filter.Task, "task", "t", "", "only those of this task")
	cmd.Flags().StringVar(&filter.Service, "service", "", "only those to this service")
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func (c *cli) writeConnections(w io.Writer, list *control.Connections) {
	t := newTable(w, "TASK", "NAME", "VIP", "ENDPOINT", "PROTOCOL", "STATE", "AGE", "SENT", "RECEIVED", "REQUESTS")
	for _, v := range list.Connections {
		endpoint, sent, received, requests := "", "", "", ""
		if v.Endpoint.IsValid() {
			endpoint = v.Endpoint.String()
		}
		if v.Bytes != nil {
			sent, received = number(v.Bytes.Sent), number(v.Bytes.Received)
		}
		if f := v.Forwarder; f != nil {
			requests = fmt.Sprint(f.Requests)
			if f.InFlight > 0 {
				requests += fmt.Sprintf(", %d in flight", f.InFlight)
			}
		}
		t.row(v.Task, v.Name, v.VIP.String(), endpoint, v.Protocol, v.State, c.since(v.Started), sent, received, requests)
	}
	t.flush()
	if shown := len(list.Connections); shown < list.Total {
		fmt.Fprintf(w, "\n%d of %d connections are shown: narrow it with --task and --service\n", shown, list.Total)
	}
}
