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
	"errors"
	"fmt"
	"io"
	"os"
	"time"
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
	*report
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

// step is one thing shown. It says what came of it, and returns an error
// unless it held.
type step struct {
	title string
	run   func(*demo, context.Context) error
}

func steps() []step {
	return []step{
		{"make namespaces on a bridge, servers and clients in them", (*demo).make},
		{"run the daemon", (*demo).runDaemon},
		{"names resolve, whatever resolver a program has", (*demo).resolveNames},
		{"a program outside connectd's clients sees nothing of it", (*demo).outsider},
		{"curl by name: it sees the VIP, the server sees curl's own address", (*demo).addresses},
		{"new connections spread over endpoints by weight", (*demo).spread},
		{"redis-cli and UDP by name", (*demo).otherProtocols},
		{"an nginx is killed under load, avoided, and used again when it is back", (*demo).kill},
		{"a server whose health check fails is left, and its connections end", (*demo).failCheck},
		{"drain an endpoint under load", (*demo).drain},
		{"an HTTP service: requests that an endpoint refuses are made again, if they may", (*demo).requests},
		{"a new service appears to a running process", (*demo).newService},
		{"what the command line shows", (*demo).commandLine},
		{"what the metrics say", (*demo).metrics},
		{"kill -9 the daemon under load, and start it again", (*demo).restartKilled},
		{"stop the daemon with SIGTERM under load, and start it again", (*demo).restartStopped},
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
	d := &demo{report: newReport(out, len(steps())+1), opts: opts, name: name}
	return d.whole(ctx, d.perform, d.showLogs, d.cleanUp)
}

// whole is a demo from the sweep to the verdict.
func (d *report) whole(ctx context.Context, perform func(context.Context) error, showLogs func(), cleanUp func(context.Context) error) error {
	swept, err := sweep()
	if err != nil {
		return fmt.Errorf("sweep what a killed demo left: %w", err)
	}
	for _, name := range swept {
		d.say("swept what a killed demo left: %s", name)
	}
	started := time.Now()
	err = perform(ctx)
	if err != nil && ctx.Err() == nil {
		showLogs()
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	err = errors.Join(err, d.step(d.total, "clean up", func() error { return cleanUp(clean) }))
	if err != nil {
		how := "failed"
		if ctx.Err() != nil {
			how = "was stopped"
		}
		d.line("\nThe demo %s after %.1f s.", how, time.Since(started).Seconds())
		return err
	}
	d.line("\nAll of it held, in %.1f s, and nothing is left behind.", time.Since(started).Seconds())
	return nil
}

func (d *demo) perform(ctx context.Context) error {
	for i, s := range steps() {
		err := d.step(i+1, s.title, func() error {
			err := s.run(d, ctx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	if d.opts.Keep {
		d.line("\nEverything stays until Ctrl-C. Look around, and be a client (the hooks see the demo's cgroup only):")
		d.say("%s -c %s status", d.opts.Binary, d.daemon.config)
		d.say("sh -c 'echo $$ >%s/cgroup.procs; exec ip netns exec %s curl http://%s'", d.world.web.cgroup.Name(), d.world.web.netnsName(), d.vip)
		d.line("")
		<-ctx.Done()
	}
	return nil
}
