package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"connectd/pkg/control"
)

const (
	defaultConfig = "/etc/connectd/connectd.yaml"
	defaultSocket = "/run/connectd/connectd.sock"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// errReported is a failure of which the command has already told everything.
var errReported = errors.New("reported")

// usageError is a command line that makes no sense.
type usageError struct{ error }

// cli is one run of the program.
type cli struct {
	env
	config string
	socket string
	output output
}

// execute runs one command line and returns the exit code.
func execute(e env) int {
	root := newRoot(e)
	root.SetArgs(e.args)
	cmd, err := root.ExecuteContextC(e.ctx)
	if err == nil {
		return exitOK
	}
	switch {
	case errors.Is(err, errReported):
	case isUsage(err):
		fmt.Fprintf(e.stderr, "connectd: %s\nSee '%s --help'.\n", err, cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(e.stderr, "connectd: %s\n", err)
	}
	return exitFailure
}

// isUsage says whether the command line makes no sense, to us or to the daemon.
func isUsage(err error) bool {
	if _, ok := errors.AsType[usageError](err); ok {
		return true
	}
	refusal, ok := errors.AsType[*control.Error](err)
	return ok && refusal.Code == control.CodeInvalid
}

func newRoot(e env) *cobra.Command {
	c := &cli{env: e}
	root := &cobra.Command{
		Use:   "connectd",
		Short: "Names that lead to healthy endpoints",
		Long: `connectd lets every task on this node reach services by short names, through
eBPF: a name leads to a healthy endpoint, without a sidecar.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Args:          cobra.ArbitraryArgs, // or cobra answers an unknown command itself
		RunE:          unknownCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SuggestionsMinimumDistance = 2 // edits
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&c.config, "config", "c", defaultConfig, "config file")
	root.AddCommand(
		c.runCommand(), c.checkCommand(), c.doctorCommand(), c.unloadCommand(), c.demoCommand(), c.versionCommand(),
		c.statusCommand(), c.servicesCommand(), c.endpointsCommand(), c.resolveCommand(),
		c.tasksCommand(), c.connectionsCommand(), c.eventsCommand(),
		c.drainCommand(true), c.drainCommand(false), c.offCommand(), c.onCommand(), c.reloadCommand(),
	)
	return root
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		cmd.Help()
		return usageError{errors.New("no command given")}
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError{errors.New(text)}
}

// args makes wrong arguments a usageError.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) != nil {
			return usageError{fmt.Errorf("wrong number of arguments: it is '%s'", cmd.UseLine())}
		}
		return nil
	}
}

// addClientFlags is for commands that ask the daemon.
func (c *cli) addClientFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.socket, "socket", "", "control socket (default: the one that the config names)")
	return cmd
}

func (c *cli) addOutputFlag(cmd *cobra.Command) *cobra.Command {
	c.output = outputTable
	cmd.Flags().VarP(&c.output, "output", "o", "output format: table or json")
	return cmd
}

// ask makes one request to the daemon, and says what to do if it is away.
func ask[T any](c *cli, request func(*control.Client) (T, error)) (T, error) {
	socket, guessed := c.socket, error(nil)
	if socket == "" {
		if socket, guessed = c.controlSocket(c.config); guessed != nil {
			socket = defaultSocket
		}
	}
	value, err := request(control.NewClient(socket))
	if !errors.Is(err, control.ErrNotRunning) {
		return value, err
	}
	advice := []string{err.Error(), "Start it with 'connectd run'; 'connectd doctor' checks this node."}
	if c.socket == "" {
		advice = append(advice, "If it listens elsewhere, say so with --config or --socket.")
	}
	if guessed != nil {
		advice = append(advice, fmt.Sprintf("The socket is a guess, because the config cannot be used: %s", guessed))
	}
	return value, errors.New(strings.Join(advice, "\n"))
}

// output is the value of -o.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "format" }

func (o *output) Set(s string) error {
	if !slices.Contains([]output{outputTable, outputJSON}, output(s)) {
		return errors.New("say table or json")
	}
	*o = output(s)
	return nil
}
