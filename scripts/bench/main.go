// Command bench measures the numbers that connectd promises and prints them as
// a table; docs/performance.md says how. It needs root, bin/connectd and
// nothing else on the node: what else runs there is noise.
//
//	go run ./scripts/bench [-quick] [-write]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scale is how much is measured.
type scale struct {
	hookRounds int           // of 10,000 connections
	services   int           // in the large catalog
	starts     int           // of the daemon
	changes    int           // of one endpoint
	rest       time.Duration // until memory is called at rest
	httpPairs  int
	leg        time.Duration // of one HTTP load
}

var (
	full  = scale{hookRounds: 20, services: 10_000, starts: 10, changes: 40, rest: 30 * time.Second, httpPairs: 120, leg: 150 * time.Millisecond}
	quick = scale{hookRounds: 2, services: 10_000, starts: 1, changes: 6, rest: time.Second, httpPairs: 4, leg: 100 * time.Millisecond}
)

const document = "docs/performance.md"

func main() {
	if len(os.Args) == 2 && os.Args[1] == peerCommand {
		if err := runPeer(); err != nil {
			fmt.Fprintf(os.Stderr, "bench peer: %s\n", err)
			os.Exit(1)
		}
		return
	}
	isQuick := flag.Bool("quick", false, "measure little: shows that the benchmark works, not how fast anything is")
	write := flag.Bool("write", false, "write the table to "+document)
	binary := flag.String("connectd", "bin/connectd", "the daemon to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := full
	if *isQuick {
		s = quick
	}
	begun := time.Now()
	rows, err := measure(ctx, *binary, s)
	text := table(rows)
	fmt.Print(text)
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	if err == nil && *write {
		err = writeBlock(document, fmt.Sprintf("%s, %s.\n\n%s", time.Now().Format(time.DateOnly), machine(), text))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
	fmt.Printf("took %s\n", time.Since(begun).Round(time.Second))
}

// measure returns the rows it has even when it fails.
func measure(ctx context.Context, binary string, s scale) (rows []row, err error) {
	sweep()
	say("hooks")
	if rows, err = measureHooks(ctx, s); err != nil {
		return rows, err
	}
	r, err := newRig(ctx, binary)
	if err != nil {
		return rows, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for _, step := range []struct {
		what string
		run  func(context.Context, *rig, scale) ([]row, error)
	}{
		{"starts", measureStarts},
		{"changes", measureChanges},
		{"memory", measureLarge},
		{"HTTP", measureHTTP},
		{"memory in a storm", measureStorm},
		{"memory of a small catalog", measureSmall},
	} {
		say(step.what)
		more, err := step.run(ctx, r, s)
		rows = append(rows, more...)
		if err != nil {
			return rows, fmt.Errorf("measure %s: %w", step.what, err)
		}
	}
	return rows, nil
}

func say(what string) {
	fmt.Fprintf(os.Stderr, "%s measure %s\n", time.Now().Format(time.TimeOnly), what)
}

// machine describes where this runs in general words.
func machine() string {
	var u unix.Utsname
	unix.Uname(&u)
	kernel, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d virtual cores, Linux %s, %s", runtime.NumCPU(), kernel, runtime.Version())
}
