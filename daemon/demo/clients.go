package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
)

// client is the demo's end of the long-lived client process.
type client struct {
	process *process
	stdin   io.WriteCloser
	enc     *json.Encoder
	dec     *json.Decoder
	stdout  *os.File
}

// startClient starts this very program as a client.
func startClient(p *place, log io.Writer) (*client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "demo")
	cmd.Env = append(os.Environ(), clientVariable+"=1")
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own: that of StdoutPipe is closed by Wait, which runs
	// while replies are read.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stdout = w
	c := &client{stdin: stdin, enc: json.NewEncoder(stdin), dec: json.NewDecoder(r), stdout: r}
	if c.process, err = p.watch(cmd); err != nil {
		stdin.Close()
		r.Close()
		return nil, err
	}
	return c, nil
}

// ask makes one request. The process does not outlive a context that ends
// meanwhile, so that nothing waits for it.
func (c *client) ask(ctx context.Context, req request) (reply, error) {
	defer context.AfterFunc(ctx, func() { syscall.Kill(c.process.pid(), syscall.SIGKILL) })()
	if err := c.enc.Encode(req); err != nil {
		return reply{}, fmt.Errorf("ask the long-lived client: %w", err)
	}
	var r reply
	if err := c.dec.Decode(&r); err != nil {
		return reply{}, fmt.Errorf("ask the long-lived client: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// stats reads all counters.
func (c *client) stats(ctx context.Context) (loadStats, []heldStats, error) {
	r, err := c.ask(ctx, request{Op: "stats"})
	return r.Load, r.Held, err
}

// underLoad runs fn while workers make new connections to target, and returns
// what came of those connections.
func (c *client) underLoad(ctx context.Context, target string, workers int, fn func() error) (loadStats, error) {
	before, _, err := c.stats(ctx)
	if err != nil {
		return loadStats{}, err
	}
	if _, err := c.ask(ctx, request{Op: "load", Target: target, Count: workers}); err != nil {
		return loadStats{}, err
	}
	err = fn()
	if _, stopErr := c.ask(ctx, request{Op: "stop"}); err == nil {
		err = stopErr
	}
	if err != nil {
		return loadStats{}, err
	}
	after, _, err := c.stats(ctx)
	return after.since(before), err
}

// resolve asks with the process's own resolver.
func (c *client) resolve(ctx context.Context, name string) (netip.Addr, error) {
	r, err := c.ask(ctx, request{Op: "resolve", Target: name})
	if err != nil {
		return netip.Addr{}, err
	}
	return r.Addresses[0], nil
}

func (c *client) close(ctx context.Context) {
	c.stdin.Close()
	c.process.stop(ctx, syscall.SIGKILL)
	c.stdout.Close()
}
