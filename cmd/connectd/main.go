// Command connectd is the daemon and the tool to look into it: parsing and
// printing only, the work is in package daemon and behind the control socket.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"connectd/daemon"
	"connectd/daemon/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(execute(env{
		ctx:     ctx,
		args:    os.Args[1:],
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		now:     time.Now,
		version: daemon.Version,

		controlSocket: daemon.ControlSocket,
		run:           daemon.Run,
		check:         daemon.Check,
		doctor:        daemon.Doctor,
		unload:        daemon.Unload,
		demo: func(ctx context.Context, w io.Writer, opts demoOptions) error {
			return demo.Run(ctx, w, demo.Options{Verbose: opts.verbose})
		},
	}))
}
