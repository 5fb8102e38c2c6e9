package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

func (c *cli) eventsCommand() *cobra.Command {
	var filter control.EventFilter
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List what has happened: refusals, problems, changes",
		Long: `List what the daemon remembers of what has happened on this node, the last
1000 events: what tasks asked for and were refused and why, problems with tasks,
and what became of tasks, endpoints and services. The same refusal or problem
within a minute is one event that counts.` + taskHelp,
		Example: `  connectd events --kind refused,problem
  connectd events --task web --follow`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			page, err := ask(c, func(daemon *control.Client) (*control.Events, error) { return daemon.Events(cmd.Context(), filter) })
			if err != nil {
				return err
			}
			if !follow {
				return c.print(page.Events, func(w io.Writer) { c.writeEvents(w, page.Events) })
			}
			return c.followEvents(cmd, page, filter)
		},
	}
	cmd.Flags().StringVarP(&filter.Task, "task", "t", "", "only those of this task")
	cmd.Flags().StringSliceVarP(&filter.Kinds, "kind", "k", nil, "only those of these kinds")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those to come, one a line, until interrupted")
	return c.addClientFlags(c.addOutputFlag(cmd))
}

// followEvents writes events as they come. Being interrupted is its usual end.
func (c *cli) followEvents(cmd *cobra.Command, page *control.Events, filter control.EventFilter) error {
	for {
		if page.Missed > 0 {
			fmt.Fprintf(c.stderr, "connectd: %d events came too fast to be shown\n", page.Missed)
		}
		for i := range page.Events {
			if err := c.writeEvent(&page.Events[i]); err != nil {
				return err
			}
		}
		next, err := ask(c, func(daemon *control.Client) (*control.Events, error) {
			return daemon.Follow(cmd.Context(), page.Cursor, filter)
		})
		if cmd.Context().Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		page = next
	}
}

// writeEvent writes one line, of widths that most events fit into.
func (c *cli) writeEvent(e *control.Event) error {
	if c.output == outputJSON {
		return json.NewEncoder(c.stdout).Encode(e)
	}
	cells := c.eventCells(e)
	for i, cell := range cells {
		if cell = oneLine(cell); cell == "" {
			cell = "-"
		}
		cells[i] = fmt.Sprintf("%-*s", []int{19, 9, 12, 12, 21, 5, 0}[i], cell)
	}
	_, err := fmt.Fprintln(c.stdout, strings.Join(cells, "  "))
	return err
}

func (c *cli) writeEvents(w io.Writer, list []control.Event) {
	t := newTable(w, "TIME", "KIND", "TASK", "NAME", "ADDRESS", "TIMES", "REASON")
	for i := range list {
		t.row(c.eventCells(&list[i])...)
	}
	t.flush()
}

func (c *cli) eventCells(e *control.Event) []string {
	address, reason := "", e.Reason
	if e.Address.IsValid() {
		address = e.Address.String()
	}
	if e.Detail != "" {
		reason = strings.TrimPrefix(reason+": "+e.Detail, ": ")
	}
	return []string{e.At.In(c.now().Location()).Format("2006-01-02 15:04:05"), string(e.Kind), e.Task, e.Name, address, number(e.Times), reason}
}

func (c *cli) offCommand() *cobra.Command {
	return c.addClientFlags(&cobra.Command{
		Use:   "off",
		Short: "Put this node back as if connectd were not there, until on",
		Long: `Put this node back as if connectd were not there, without a restart: names go to
the tasks' own resolvers, and VIPs lead nowhere. Connections and requests in
flight go on; who holds an address that it was given may use it for five more
seconds. It takes up to 20 seconds and holds over restarts, until 'connectd on'.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := ask(c, func(daemon *control.Client) (*control.Brake, error) { return daemon.Off(cmd.Context()) })
			if err != nil {
				return unfinished(err)
			}
			fmt.Fprintf(c.stdout, "connectd is OFF on this node: %s not served, until 'connectd on'\n", plural(b.Tasks, "task"))
			return nil
		},
	})
}

func (c *cli) onCommand() *cobra.Command {
	return c.addClientFlags(&cobra.Command{
		Use:   "on",
		Short: "End an off: serve the tasks of this node again",
		Long:  "End an off: serve the tasks of this node again. It returns when they are.",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := ask(c, func(daemon *control.Client) (*control.Brake, error) { return daemon.On(cmd.Context()) })
			if err != nil {
				return unfinished(err)
			}
			fmt.Fprintf(c.stdout, "connectd is on: it serves %s\n", plural(b.Tasks, "task"))
			return nil
		},
	})
}

// unfinished says that what failed was begun.
func unfinished(err error) error {
	if refusal, ok := errors.AsType[*control.Error](err); ok && refusal.Code == control.CodeFailed {
		return fmt.Errorf("not all of it is done, see 'connectd status': %w", err)
	}
	return err
}
