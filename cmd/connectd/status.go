package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

func (c *cli) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether connectd works, and what is wrong",
		Long: `Show whether connectd works, and what is wrong and what to do about it.

The first line is the verdict: ok, degraded (it serves, with problems) or not
ready. The exit code is 1 if it is not ready or does not run.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(c, func(daemon *control.Client) (*control.Status, error) { return daemon.Status(cmd.Context()) })
			if err != nil {
				return err
			}
			if err := c.print(s, func(w io.Writer) { c.writeStatus(w, s) }); err != nil {
				return err
			}
			if s.Verdict == control.VerdictNotReady {
				return errReported
			}
			return nil
		},
	}
	return c.addClientFlags(c.addOutputFlag(cmd))
}

func (c *cli) writeStatus(w io.Writer, s *control.Status) {
	c.writeVerdict(w, s)
	uptime := time.Duration(s.UptimeSeconds * float64(time.Second))
	fmt.Fprintf(w, "\nDaemon:    version %s, pid %d, up %s (since %s)\n", s.Version, s.PID, age(uptime), c.clock(s.Started))
	fmt.Fprintf(w, "Config:    %s%s\n", s.Config.Path, c.loaded(s.Config))
	fmt.Fprintf(w, "Revision:  %s\n", c.progress(s.Reconcile))
	fmt.Fprintf(w, "Kernel:    %s, %d of %s attached at %s\n", s.Kernel.Release, attached(s.Kernel.Programs), plural(len(s.Kernel.Programs), "hook"), s.Kernel.Cgroup)

	fmt.Fprintln(w)
	t := newTable(w, "CATALOG FILE", "SERVICES", "LOADED", "ERRORS")
	for _, f := range s.Catalog {
		t.row(f.Path, fmt.Sprint(f.Services), ago(c.since(f.Loaded)), fmt.Sprint(len(f.Errors)))
	}
	t.flush()
	fmt.Fprintln(w)
	t = newTable(w, "TASK", "NAMESPACES", "ATTACHED", "KIND", "TARGET")
	for _, task := range s.Tasks {
		yes := "yes"
		if !task.Attached {
			yes = "NO"
		}
		t.row(task.Name, join(",", task.Namespaces), yes, task.Kind, task.Target)
	}
	t.flush()
	fmt.Fprintln(w)
	t = newTable(w, "MAP", "ENTRIES", "OF", "FULL", "MEMORY")
	for _, m := range s.Kernel.Maps {
		if m.MaxEntries > 0 {
			t.row(m.Name, number(m.Entries), number(m.MaxEntries), percent(100*float64(m.Entries)/float64(m.MaxEntries)), memory(m.Bytes))
		}
	}
	t.flush()
}

// writeVerdict is all that most readers need.
func (c *cli) writeVerdict(w io.Writer, s *control.Status) {
	word := map[control.Verdict]string{control.VerdictNotReady: "not ready"}[s.Verdict]
	if word == "" {
		word = string(s.Verdict)
	}
	if n := len(s.Problems); n > 0 {
		word += ", " + plural(n, "problem")
	}
	endpoints := plural(s.Endpoints.Total(), "endpoint")
	if s.Endpoints.Total() > 0 {
		endpoints += " (" + counts(s.Endpoints) + ")"
	}
	fmt.Fprintf(w, "connectd is %s: %s, %s, %s\n", word, plural(s.Services.Total, "service"), endpoints, plural(len(s.Tasks), "task"))
	for _, p := range s.Problems {
		fmt.Fprintf(w, "\n  ! %s\n", indent(p.Message, "    "))
		if p.Fix != "" {
			fmt.Fprintf(w, "    what to do: %s\n", indent(p.Fix, "    "))
		}
	}
}

func (c *cli) loaded(f control.Config) string {
	text := ""
	if !f.Loaded.IsZero() {
		text += ", loaded " + ago(c.since(f.Loaded))
	}
	if !f.Failed.IsZero() {
		text += ", last reload failed " + ago(c.since(f.Failed))
	}
	return text
}

func (c *cli) progress(r control.Reconcile) string {
	text := fmt.Sprintf("%d, all of it in the kernel", r.Revision)
	if r.Applied != r.Revision {
		text = fmt.Sprintf("%d, the kernel is at %d, %.1f s behind", r.Revision, r.Applied, r.LagSeconds)
	}
	if r.Errors > 0 {
		text += fmt.Sprintf("; %s since the start", plural(int(r.Errors), "error"))
		if !r.LastErrorAt.IsZero() {
			text += ", last " + ago(c.since(r.LastErrorAt))
		}
	}
	if r.Repaired > 0 {
		text += fmt.Sprintf("; %d entries repaired", r.Repaired)
	}
	return text
}

func attached(programs []control.Program) int {
	n := 0
	for _, p := range programs {
		if p.Attached {
			n++
		}
	}
	return n
}

func ago(age string) string {
	if age == "" {
		return ""
	}
	return age + " ago"
}

// memory is bytes in KiB or MiB.
func memory(bytes uint64) string {
	switch {
	case bytes == 0:
		return ""
	case bytes < 1<<20:
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}
