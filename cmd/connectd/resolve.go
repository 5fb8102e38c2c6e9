package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

func (c *cli) resolveCommand() *cobra.Command {
	var task string
	cmd := &cobra.Command{
		Use:   "resolve NAME",
		Short: "Show what tasks get for a name, and which endpoints they reach",
		Long: `Show what each task on this node gets when it asks for NAME, which endpoints
it reaches and how often, and if it gets nothing, why.

The exit code is 1 if no task gets an answer.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := ask(c, func(daemon *control.Client) ([]control.Resolution, error) {
				return daemon.Resolve(cmd.Context(), args[0], task)
			})
			if err != nil {
				return err
			}
			if err := c.print(list, func(w io.Writer) { writeResolutions(w, args[0], list) }); err != nil {
				return err
			}
			if !slices.ContainsFunc(list, func(r control.Resolution) bool { return r.Found }) {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&task, "task", "t", "", "only this task")
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func writeResolutions(w io.Writer, name string, list []control.Resolution) {
	if len(list) == 0 {
		fmt.Fprintln(w, "No task is known on this node, so nobody gets an answer: see clients in the config.")
	}
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "Task %s (may use %s)\n", r.Task, join(", ", r.Namespaces))
		if !r.Found {
			fmt.Fprintf(w, "  %s: not answered: %s\n", oneLine(name), oneLine(r.Reason))
			continue
		}
		fmt.Fprintf(w, "  %s = %s (%s)\n", oneLine(name), join(", ", r.Addresses), oneLine(r.Reason))
		for _, target := range r.Targets {
			writeTarget(w, target)
		}
	}
}

func writeTarget(w io.Writer, target control.Target) {
	remark := ""
	if n := note(target.Panic, target.LastResort); n != "" {
		remark = ", " + n
	}
	fmt.Fprintf(w, "  port %s/%s: %s, %s%s\n", join(",", target.Ports), target.Protocol, target.Service, target.Policy, remark)
	if len(target.Endpoints) == 0 {
		fmt.Fprintf(w, "    no usable endpoint: connects fail; see 'connectd endpoints %s'\n", target.Service)
		return
	}
	t := newTable(w, "    ENDPOINT", "SHARE", "STATE", "ZONE")
	for _, e := range target.Endpoints {
		t.row("    "+e.Address.String(), percent(e.Percent), e.State, e.Zone)
	}
	t.flush()
}
