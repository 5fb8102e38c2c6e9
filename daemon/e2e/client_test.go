package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"connectd/pkg/testutil"
)

// clientMain is this binary as a client program inside a host:
//
//	resolve NAME                 its addresses by Go's resolver, a line each
//	ask NETWORK ADDRESS TIMES    who answered how often, as JSON
//	get URL METHOD...            requests until its input ends, see getting
//	churn ADDRESS TIMES WORKERS  short connections; what went wrong, as JSON
func clientMain(args []string) int {
	var result any
	var err error
	switch {
	case len(args) == 2 && args[0] == "resolve":
		result, err = (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), args[1])
	case len(args) == 4 && args[0] == "ask":
		result, err = clientAsk(args[1], args[2], args[3])
	case len(args) > 2 && args[0] == "get":
		result = clientGet(args[1], args[2:])
	case len(args) == 4 && args[0] == "churn":
		result, err = clientChurn(args[1], args[2], args[3])
	default:
		err = fmt.Errorf("unknown client %q", args)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// runClient runs it on a host, in a cgroup if that is not nil.
func runClient[T any](h *testutil.Host, g *testutil.Cgroup, args ...string) (result T, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := h.Command(ctx, "/proc/self/exe", args...)
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	cmd.Path = self
	cmd.Env = append(os.Environ(), clientEnv+"=1")
	if g != nil {
		cmd.In(g)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Run(); err != nil {
		return result, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return result, json.Unmarshal(stdout.Bytes(), &result)
}

func clientAsk(network, address, times string) (map[string]int, error) {
	n, err := strconv.Atoi(times)
	got := make(map[string]int)
	for range n {
		var a testutil.Answer
		conn, err := dialer().Dial(network, address)
		if err == nil {
			a, err = testutil.AskConn(conn)
			conn.Close()
		}
		if err != nil {
			a.Name = short(err)
		}
		got[a.Name]++
	}
	return got, err
}

func dialer() *net.Dialer {
	d := &net.Dialer{Timeout: 10 * time.Second}
	d.SetMultipathTCP(false)
	return d
}

// short is an error as a bounded word to count by.
func short(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timeout"
	}
	return err.Error()
}

// clientChurn makes connections one after another in each worker, each with a
// question and its echo, and counts every error.
func clientChurn(address, times, workers string) (map[string]int, error) {
	n, err := strconv.Atoi(times)
	if err != nil {
		return nil, err
	}
	w, err := strconv.Atoi(workers)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	got := make(map[string]int)
	var wg sync.WaitGroup
	for range w {
		wg.Go(func() {
			own := make(map[string]int)
			for range n / w {
				if err := exchange(address); err != nil {
					own[short(err)]++
				} else {
					own["ok"]++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for k, v := range own {
				got[k] += v
			}
		})
	}
	wg.Wait()
	return got, nil
}

// exchange is one short connection: the server's line, four bytes there and
// back. It is ended by a reset of our own, which leaves no TIME_WAIT.
func exchange(address string) error {
	conn, err := dialer().Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.(*net.TCPConn).SetLinger(0)
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 128)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	_, err = io.ReadFull(r, make([]byte, 4))
	return err
}
