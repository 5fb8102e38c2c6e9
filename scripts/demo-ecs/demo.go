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

	"connectd/daemon/demo/report"
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
	*report.Report
	opts   options
	node   *node
	daemon *daemon

	orders []*docker.Task // those that are in service
	web    *docker.Task   // the client
	others []*docker.Task
}

func steps() []report.Step[*demo] {
	return []report.Step[*demo]{
		{Title: "a container instance: namespaces, a dockerd in them, an ECS agent", Run: (*demo).makeNode},
		{Title: "connectd on it, which is told Docker's socket and a namespace", Run: (*demo).runDaemon},
		{Title: "a task joins by its pasted Service Connect block, and says when it is ready", Run: (*demo).readiness},
		{Title: "a client task calls by short name", Run: (*demo).call},
		{Title: "tasks in bridge and host mode call too", Run: (*demo).modes},
		{Title: "a task without labels finds nothing", Run: (*demo).stranger},
		{Title: "a label with a mistake is reported, and stops nobody", Run: (*demo).badLabel},
		{Title: "both tasks of orders are replaced under load, with a drain container", Run: (*demo).replace},
		{Title: "what the command line shows", Run: (*demo).views},
		{Title: "kill -9 connectd under load, and start it again", Run: (*demo).restartKilled},
		{Title: "connectd off takes it all away from running tasks, on brings it back", Run: (*demo).brake},
		{Title: "the tasks stop, and their network namespaces go", Run: (*demo).stopTasks},
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
	d := &demo{Report: report.New(out, len(steps())), opts: o}
	return report.Run(ctx, d.Report, d, steps(), report.Demo{Sweep: sweep, Logs: d.showLogs, CleanUp: d.cleanUp, CleanTime: cleanTimeout})
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
