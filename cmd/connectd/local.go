package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

func (c *cli) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground until SIGTERM or SIGINT. SIGHUP makes it read
its files again. What it put into the kernel stays when it ends: connections
and names go on working. 'connectd unload' takes it away.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), c.config) },
	}
}

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Validate the config and catalog files",
		Long:  "Validate the config and catalog files and list every error with file and line.\nNothing is changed, and no daemon is needed.",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			warnings, err := c.check(c.config)
			for _, w := range warnings {
				fmt.Fprintf(c.stderr, "warning: %s\n", w)
			}
			if err != nil {
				fmt.Fprintln(c.stderr, err) // without a prefix: editors know "file:line: text"
				return errReported
			}
			fmt.Fprintf(c.stdout, "%s: ok\n", c.config)
			return nil
		},
	}
}

func (c *cli) unloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unload",
		Short: "Take everything of connectd out of the kernel",
		Long: `Take everything of connectd out of the kernel: hooks, maps and pins. Tasks then
connect as if connectd had never been there. Stop the daemon first.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := c.unload(cmd.Context(), c.config)
			for _, what := range removed {
				fmt.Fprintf(c.stdout, "removed %s\n", what)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(c.stdout, "nothing to remove")
			}
			return err
		},
	}
}

func (c *cli) demoCommand() *cobra.Command {
	var opts demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything at work, in namespaces of its own",
		Long: `Make network namespaces with real servers and clients, run a daemon on them,
and show names, balancing, health, draining and restarts at work. It takes under
a minute and leaves nothing behind. The exit code is 0 only if all of it held.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context(), c.stdout, opts) },
	}
	cmd.Flags().BoolVarP(&opts.verbose, "verbose", "v", false, "show the daemon's log too")
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  args(cobra.NoArgs),
		Run: func(*cobra.Command, []string) {
			fmt.Fprintf(c.stdout, "connectd %s (%s, %s/%s)\n", c.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

func (c *cli) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether connectd can work on this node",
		Long: `Check the kernel, cgroups, limits and hooks of this node, and make a canary
connection end to end. Each finding says what to do. The exit code is 1 if any
check fails.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := c.doctor(cmd.Context(), c.config)
			for i := range checks {
				checks[i].OK = checks[i].Severity == control.SeverityOK
			}
			if err := c.print(checks, func(w io.Writer) { writeChecks(w, checks) }); err != nil {
				return err
			}
			if tally(checks)[control.SeverityFail] > 0 {
				return errReported
			}
			return nil
		},
	}
	return c.addOutputFlag(cmd)
}

func writeChecks(w io.Writer, checks []control.Check) {
	width := 0
	for _, check := range checks {
		width = max(width, len(check.Name))
	}
	for _, check := range checks {
		const margin = "      "
		fmt.Fprintf(w, "%-4s  %-*s  %s\n", check.Severity, width, check.Name, indent(check.Detail, fmt.Sprintf("%s%*s", margin, width+2, "")))
		if check.Severity != control.SeverityOK && check.Fix != "" {
			fmt.Fprintf(w, "%s%*s  what to do: %s\n", margin, width, "", indent(check.Fix, fmt.Sprintf("%s%*s", margin, width+2, "")))
		}
	}
	n := tally(checks)
	fmt.Fprintf(w, "\n%s: %d ok, %d warn, %d fail, %d skip\n", plural(len(checks), "check"),
		n[control.SeverityOK], n[control.SeverityWarn], n[control.SeverityFail], n[control.SeveritySkip])
}

func tally(checks []control.Check) map[control.Severity]int {
	n := map[control.Severity]int{}
	for _, check := range checks {
		n[check.Severity]++
	}
	return n
}
