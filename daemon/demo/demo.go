// Package demo shows connectd at work: real servers and clients in network
// namespaces of its own, a real daemon between them, and a check of everything
// it claims. It leaves nothing behind.
//
// Whatever it makes outside of its process begins with cddemo<pid>-<start>, so
// that the next demo can sweep what a killed one left. The hooks are confined
// to the demo's own cgroup: no other process of the machine runs through them.
package demo

import (
	"context"
	"io"
	"os"
	"time"

	"connectd/daemon/demo/report"
)

// cleanTimeout bounds the clean-up, which goes on after Ctrl-C.
const cleanTimeout = 20 * time.Second

// Options say how the demo runs.
type Options struct {
	Binary  string // connectd, run as the daemon and its command line; "" is this program
	Keep    bool   // after the last step keep everything running until the context ends
	Verbose bool   // show the daemon's log as it is written
}

// demo is one run.
type demo struct {
	*report.Report
	opts   Options
	name   string // begins every name outside of the process
	world  *world
	serve  *servers
	daemon *daemon
	web    *client // the long-lived process

	vip        string // of orders
	held       int    // connections that the long-lived process keeps open
	terminated int    // of them ended by connectd so far, as it should
}

func steps() []report.Step[*demo] {
	return []report.Step[*demo]{
		{Title: "make namespaces on a bridge, servers and clients in them", Run: (*demo).make},
		{Title: "run the daemon", Run: (*demo).runDaemon},
		{Title: "names resolve, whatever resolver a program has", Run: (*demo).resolveNames},
		{Title: "a program outside connectd's clients sees nothing of it", Run: (*demo).outsider},
		{Title: "curl by name: it sees the VIP, the server sees curl's own address", Run: (*demo).addresses},
		{Title: "new connections spread over endpoints by weight", Run: (*demo).spread},
		{Title: "redis-cli and UDP by name", Run: (*demo).otherProtocols},
		{Title: "an nginx is killed under load, avoided, and used again when it is back", Run: (*demo).kill},
		{Title: "a server whose health check fails is left, and its connections end", Run: (*demo).failCheck},
		{Title: "drain an endpoint under load", Run: (*demo).drain},
		{Title: "an HTTP service: requests that an endpoint refuses are made again, if they may", Run: (*demo).requests},
		{Title: "a new service appears to a running process", Run: (*demo).newService},
		{Title: "what the command line shows", Run: (*demo).commandLine},
		{Title: "what the metrics say", Run: (*demo).metrics},
		{Title: "kill -9 the daemon under load, and start it again", Run: (*demo).restartKilled},
		{Title: "stop the daemon with SIGTERM under load, and start it again", Run: (*demo).restartStopped},
	}
}

// Run performs the demo and writes its progress to out. The error is nil only
// if everything it shows held and nothing was left behind. When ctx ends the
// demo stops where it is and cleans up. It needs root, and one demo at a time
// in a process.
func Run(ctx context.Context, out io.Writer, opts Options) error {
	if os.Getenv(clientVariable) != "" {
		return serveClient(ctx, os.Stdin, out)
	}
	if err := checkMachine(); err != nil {
		return err
	}
	name, err := ownName()
	if err != nil {
		return err
	}
	if opts.Binary == "" {
		if opts.Binary, err = os.Executable(); err != nil {
			return err
		}
	}
	d := &demo{Report: report.New(out, len(steps())), opts: opts, name: name}
	return report.Run(ctx, d.Report, d, steps(), report.Demo{
		Sweep: sweep, Logs: d.showLogs, CleanUp: d.cleanUp, CleanTime: cleanTimeout, Linger: func() { d.linger(ctx) },
	})
}

// linger keeps everything until ctx ends, if that is wanted.
func (d *demo) linger(ctx context.Context) {
	if !d.opts.Keep {
		return
	}
	d.Line("\nEverything stays until Ctrl-C. Look around, and be a client (the hooks see the demo's cgroup only):")
	d.Say("%s -c %s status", d.opts.Binary, d.daemon.config)
	d.Say("sh -c 'echo $$ >%s/cgroup.procs; exec ip netns exec %s curl http://%s'", d.world.web.cgroup.Name(), d.world.web.netnsName(), d.vip)
	d.Line("")
	<-ctx.Done()
}
