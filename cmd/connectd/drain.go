package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

// drainCommand is drain, or undrain if on is false.
func (c *cli) drainCommand(on bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain SERVICE ADDRESS",
		Short: "Give an endpoint no new connections",
		Long: `Give an endpoint no new connections. Those it has go on until the service's
drain deadline. It holds until undrain, also over restarts of the daemon.` + serviceHelp,
		Example: "  connectd drain prod/orders 10.0.3.9:8080",
	}
	if !on {
		cmd.Use = "undrain SERVICE ADDRESS"
		cmd.Short = "End a drain: give an endpoint new connections again"
		cmd.Long = cmd.Short + "." + serviceHelp
		cmd.Example = "  connectd undrain prod/orders 10.0.3.9:8080"
	}
	cmd.Args = args(cobra.ExactArgs(2))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		address, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return usageError{fmt.Errorf("%q is not an address and port such as 10.0.3.9:8080 or [fd00::9]:8080", args[1])}
		}
		e, err := ask(c, func(daemon *control.Client) (*control.Endpoint, error) {
			if on {
				return daemon.Drain(cmd.Context(), args[0], address)
			}
			return daemon.Undrain(cmd.Context(), args[0], address)
		})
		if err != nil {
			return err
		}
		detail := c.reason(*e)
		if detail != "" {
			detail = " (" + oneLine(detail) + ")"
		}
		fmt.Fprintf(c.stdout, "%s %s is %s%s, %s\n", e.Service, e.Address, e.State, detail, plural(int(e.ActiveConnections), "connection"))
		return nil
	}
	return c.addClientFlags(cmd)
}

func (c *cli) reloadCommand() *cobra.Command {
	return c.addClientFlags(&cobra.Command{
		Use:   "reload",
		Short: "Make the daemon read its config and catalog again",
		Long: `Make the daemon read its config and catalog again, and wait until they are in
use. Every error is shown; a file with an error keeps what was in use from it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := ask(c, func(daemon *control.Client) (*control.Config, error) { return daemon.Reload(cmd.Context()) })
			if refusal, ok := errors.AsType[*control.Error](err); ok {
				return fmt.Errorf("what was in use stays in use:\n%w", refusal)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(c.stdout, "reloaded %s\n", config.Path)
			if len(config.RestartNeeded) > 0 {
				fmt.Fprintf(c.stdout, "needs a restart to take effect: %s\n", strings.Join(config.RestartNeeded, ", "))
			}
			return nil
		},
	})
}
