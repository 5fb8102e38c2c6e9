package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	clientAddress = "10.66.0.2"
	serverAddress = "10.66.0.3"
	secondAddress = "10.66.0.4"
	namePrefix    = "cdbench" // followed by the pid: everything made outside of this process
	netnsDir      = "/run/netns"
	bpffsDir      = "/sys/fs/bpf"
)

// world is a client and two servers in network namespaces of their own, which
// are linked by a bridge in a fourth.
type world struct{ prefix string }

var hosts = []struct{ name, address string }{
	{"client", clientAddress}, {"server", serverAddress}, {"second", secondAddress},
}

func (w world) netns(name string) string { return w.prefix + name }

// newWorld makes a world; close removes it, also one that was made in part.
func newWorld(ctx context.Context) (world, error) {
	w := world{prefix: fmt.Sprintf("%s%d-", namePrefix, os.Getpid())}
	steps := []string{
		"netns add NET", "-n NET link add br0 type bridge", "-n NET link set br0 up",
	}
	for _, host := range hosts {
		for _, step := range []string{
			"netns add HOST", "-n HOST link set lo up",
			"-n HOST link add eth0 type veth peer name " + host.name + " netns NET",
			"-n HOST address add " + host.address + "/24 dev eth0", "-n HOST link set eth0 up",
			"-n NET link set " + host.name + " master br0 up",
			// Thousands of connections a second: none may wait for a port, nor
			// search long for one.
			"netns exec HOST sysctl -qw net.ipv4.tcp_max_tw_buckets=0",
		} {
			steps = append(steps, strings.ReplaceAll(step, "HOST", w.netns(host.name)))
		}
	}
	for _, step := range steps {
		if err := command(ctx, "ip", strings.Fields(strings.ReplaceAll(step, "NET", w.netns("net")))...); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w world) close() error {
	var errs []error
	remove := func(name string) {
		if _, err := os.Stat(filepath.Join(netnsDir, w.netns(name))); err == nil {
			errs = append(errs, command(context.Background(), "ip", "netns", "del", w.netns(name)))
		}
	}
	for _, host := range hosts {
		remove(host.name)
	}
	remove("net")
	return errors.Join(errs...)
}

// command runs a program; what it says is in the error.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for us to handle
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// sweep removes what killed runs left.
func sweep() {
	for _, dir := range []string{netnsDir, bpffsDir, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			rest, ours := strings.CutPrefix(e.Name(), namePrefix)
			pid, _, _ := strings.Cut(rest, "-")
			if _, err := strconv.Atoi(pid); !ours || err != nil {
				continue
			}
			if exe, err := os.Readlink("/proc/" + pid + "/exe"); err == nil && strings.Contains(exe, "bench") {
				continue // it runs
			}
			if dir == netnsDir {
				command(context.Background(), "ip", "netns", "del", e.Name())
				continue
			}
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
