package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measureHooks runs BenchmarkHook of pkg/datapath, the only package that may
// know BPF programs, and reads its metrics.
func measureHooks(ctx context.Context, s scale) ([]row, error) {
	dir, err := os.MkdirTemp("", namePrefix+fmt.Sprint(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "hooks")
	if err := command(ctx, "go", "test", "-c", "-o", binary, "./pkg/datapath"); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", "^BenchmarkHook$", "-test.benchtime", fmt.Sprintf("%dx", s.hookRounds))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// It removes what it made, if it is asked to stop and not killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run BenchmarkHook: %w: %s", err, out)
	}
	var rows []row
	for _, h := range []struct {
		bench, what string
		bound       bound
	}{
		{"hot", "connect hook, 10,000 services, one hot VIP", atMost(1500)},
		{"turn", "connect hook, 10,000 services, all VIPs in turn", reported},
		{"bystander", "connect hook, a bystander", atMost(50)},
		{"bystander_connection", "all hooks, a bystander's whole connection, both ends", atMost(500)},
		{"hot_connection", "all hooks, a whole connection by VIP, both ends", reported},
	} {
		r, err := parseBenchmark(string(out), "BenchmarkHook/"+h.bench)
		if err != nil {
			return rows, err
		}
		r.what, r.unit, r.bound = h.what, "ns", h.bound
		rows = append(rows, r)
	}
	return rows, nil
}

// parseBenchmark reads the line of one benchmark:
// "BenchmarkHook/hot-2  20  34.1 empty-ns  296.1 max-ns  280.0 median-ns ...".
func parseBenchmark(out, name string) (row, error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.TrimRight(strings.TrimRight(fields[0], "0123456789"), "-") != name {
			continue
		}
		r := row{}
		r.n, _ = strconv.Atoi(fields[1])
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return r, fmt.Errorf("read %q: %w", line, err)
			}
			switch fields[i+1] {
			case "median-ns":
				r.median = value
			case "min-ns":
				r.min = value
			case "max-ns":
				r.max = value
			}
		}
		return r, nil
	}
	return row{}, fmt.Errorf("find %s: not in %q", name, out)
}
