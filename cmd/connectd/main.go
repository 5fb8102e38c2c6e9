// Command connectd is the daemon and the tool to look into it: parsing and
// printing only, the work is in package daemon and behind the control socket.
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"connectd/daemon"
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
		version: version(),

		controlSocket: daemon.ControlSocket,
		run:           daemon.Run,
		check:         daemon.Check,
		doctor:        daemon.Doctor,
		unload:        daemon.Unload,
		demo:          func(context.Context, io.Writer, demoOptions) error { return errors.New("not built yet") },
	}))
}

// version is what the Go tool noted in the binary: a tag, or the commit and
// whether files differed from it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
