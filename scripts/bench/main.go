// Command bench measures the numbers that connectd promises and prints them as
// tables; docs/performance.md says how. It needs root, bin/connectd, the peers
// (scripts/provision.sh bench) and nothing else on the node: what else runs
// there is noise.
//
//	go run ./scripts/bench [-quick] [-only part,part] [-rounds n] [-write]
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
	hookRounds  int           // of 10,000 connections
	services    int           // in the large catalog
	starts      int           // of the daemon
	changes     int           // of one endpoint
	rest        time.Duration // until memory is called at rest
	httpPairs   int
	leg         time.Duration // of one HTTP load without a proxy
	directPairs int
	rounds      int           // of loads on proxies
	hammer      time.Duration // of one such load
	held        int           // idle connections
	settle      time.Duration // until memory shows what they cost
	allocations int           // measurements of them
	allocation  time.Duration // of one
}

var (
	full = scale{
		hookRounds: 20, services: 10_000, starts: 10, changes: 40, rest: 30 * time.Second, httpPairs: 120, leg: 50 * time.Millisecond,
		directPairs: 60, rounds: 20, hammer: 300 * time.Millisecond, held: 8000, settle: 2 * time.Second, allocations: 3, allocation: 4 * time.Second,
	}
	quick = scale{
		hookRounds: 2, services: 10_000, starts: 1, changes: 6, rest: time.Second, httpPairs: 4, leg: 50 * time.Millisecond,
		directPairs: 2, rounds: 2, hammer: 100 * time.Millisecond, held: 500, settle: 200 * time.Millisecond, allocations: 1, allocation: 100 * time.Millisecond,
	}
)

const document = "docs/performance.md"

// commands are what this program is when it starts itself in a namespace.
var commands = map[string]func(args []string) error{
	peerCommand:    func([]string) error { return runPeer() },
	reverseCommand: runReverse,
	grpcCommand:    func(args []string) error { return runGRPC(args[0]) },
}

func main() {
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		if err := commands[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %s\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	isQuick := flag.Bool("quick", false, "measure little: shows that the benchmark works, not how fast anything is")
	write := flag.Bool("write", false, "write the tables to "+document)
	binary := flag.String("connectd", "bin/connectd", "the daemon to measure")
	only := flag.String("only", "", "measure only these parts, separated by commas: "+strings.Join(partNames(), ", "))
	rounds := flag.Int("rounds", 0, "rounds of loads on proxies and pairs of direct ones, instead of the usual numbers")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := full
	if *isQuick {
		s = quick
	}
	if *rounds > 0 {
		s.rounds, s.directPairs = *rounds, *rounds
	}
	chosen, err := choose(*only)
	if err == nil && *write && len(chosen) < len(parts) {
		err = errors.New("-write writes all tables: not with -only")
	}
	if err == nil {
		err = run(ctx, params{*binary, s, chosen, *write})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
}

type params struct {
	binary string
	scale  scale
	parts  []part
	write  bool
}

func run(ctx context.Context, p params) error {
	begun := time.Now()
	rows, err := measure(ctx, p)
	text := tables(rows)
	fmt.Print(text)
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", err)
	}
	if err == nil && p.write {
		err = writeBlock(document, fmt.Sprintf("%s, %s.\n\n%s", time.Now().Format(time.DateOnly), machine(), text))
	}
	if err == nil {
		fmt.Printf("took %s\n", time.Since(begun).Round(time.Second))
	}
	return err
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
