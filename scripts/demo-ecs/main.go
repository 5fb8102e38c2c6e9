// Demo-ecs shows connectd on an ECS container instance: a dockerd of its own in
// namespaces of its own, tasks arranged as the ECS agent does it, a real daemon
// between them, and a check of everything it claims. It needs root and a Go
// toolchain, takes under two minutes, and leaves nothing behind.
//
//	make build && go run ./scripts/demo-ecs
//
// Whatever it makes outside of its process begins with cdt<pid>-<start>, so that
// the next demo sweeps what a killed one left. The hooks are confined to the
// cgroup of the demo's own Docker: no other process of the machine runs through
// them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var o options
	flag.StringVar(&o.binary, "connectd", "bin/connectd", "the program shown, as make build makes it")
	flag.BoolVar(&o.verbose, "v", false, "show the daemon's log too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "demo-ecs:", err)
		os.Exit(1)
	}
}
