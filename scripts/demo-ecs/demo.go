package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"connectd/pkg/testutil/docker"
)

// cleanTimeout bounds the clean-up, which goes on after Ctrl-C.
const cleanTimeout = 40 * time.Second

type options struct {
	binary  string // connectd, as the daemon and as its command line
	verbose bool
}

// demo is one run.
type demo struct {
	*report
	opts   options
	node   *node
	daemon *daemon

	orders []*docker.Task // those that are in service
	web    *docker.Task   // the client
	others []*docker.Task
}

// step is one thing shown. It says what came of it, and returns an error unless
// it held.
type step struct {
	title string
	run   func(*demo, context.Context) error
}

func steps() []step {
	return []step{
		{"a container instance: namespaces, a dockerd in them, an ECS agent", (*demo).makeNode},
		{"connectd on it, which is told Docker's socket and a namespace", (*demo).runDaemon},
		{"a task joins by its pasted Service Connect block, and says when it is ready", (*demo).readiness},
		{"a client task calls by short name", (*demo).call},
		{"tasks in bridge and host mode call too", (*demo).modes},
		{"a task without labels finds nothing", (*demo).stranger},
		{"a label with a mistake is reported, and stops nobody", (*demo).badLabel},
		{"both tasks of orders are replaced under load, with a drain container", (*demo).replace},
		{"what the command line shows", (*demo).views},
		{"kill -9 connectd under load, and start it again", (*demo).restartKilled},
		{"connectd off takes it all away from running tasks, on brings it back", (*demo).brake},
		{"the tasks stop, and their network namespaces go", (*demo).stopTasks},
	}
}

// run performs the demo and writes its progress to out. The error is nil only
// if everything it shows held and nothing was left behind. When ctx ends the
// demo stops where it is and cleans up.
func run(ctx context.Context, out io.Writer, o options) (err error) {
	if err := checkMachine(); err != nil {
		return err
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	if _, err := os.Stat(o.binary); err != nil {
		return fmt.Errorf("%w: make build makes it", err)
	}
	d := &demo{report: newReport(out, len(steps())+1), opts: o}
	swept, err := sweep()
	if err != nil {
		return fmt.Errorf("sweep what a killed demo left: %w", err)
	}
	for _, name := range swept {
		d.say("swept what a killed demo left: %s", name)
	}
	started := time.Now()
	err = d.perform(ctx)
	if err != nil && ctx.Err() == nil {
		d.showLogs()
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	err = errors.Join(err, d.step(d.total, "clean up", func() error { return d.cleanUp(clean) }))
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
	return nil
}

// programs are what the demo runs, and the Debian package of each.
var programs = [][2]string{
	{"dockerd", "docker.io"}, {"docker", "docker.io"}, {"iptables", "iptables"}, {"/bin/busybox", "busybox-static"}, {"go", "golang-go"},
}

func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces: run it as root")
	}
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p[0]); err == nil {
			continue
		}
		if _, err := exec.LookPath("/usr/sbin/" + p[0]); err != nil { // where PATH is an ordinary user's
			missing = append(missing, fmt.Sprintf("%s (package %s)", p[0], p[1]))
		}
	}
	if missing != nil {
		return fmt.Errorf("not installed: %s", strings.Join(missing, ", "))
	}
	return nil
}
