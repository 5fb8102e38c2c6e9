package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectd/pkg/testutil"
)

// httpLoad is requests of one client, until stop: workers with a keep-alive
// connection each, over which they send a request after another.
type httpLoad struct {
	host    *testutil.Host
	address string
	retry   bool // a request is sent once more when its connection ends, or is refused, before any byte of an answer
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	done    atomic.Int64 // requests answered 200
	retried atomic.Int64

	mu   sync.Mutex
	errs []string
}

// requesting starts a load.
func (s *shop) requesting(h *testutil.Host, address string, workers int, retry bool) *httpLoad {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &httpLoad{host: h, address: address, retry: retry, cancel: cancel}
	s.Cleanup(func() { cancel(); l.wg.Wait() })
	for range workers {
		l.wg.Go(func() {
			c := &keepAlive{l: l}
			defer c.close()
			for ctx.Err() == nil {
				if err := c.request(); err != nil {
					l.fail(err)
					pause(ctx, 10*time.Millisecond)
					continue
				}
				l.done.Add(1)
			}
		})
	}
	return l
}

func (l *httpLoad) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, fmt.Sprintf("%s %s", time.Now().UTC().Format("15:04:05.000"), err))
}

// failures are how many requests have failed so far.
func (l *httpLoad) failures() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.errs)
}

// progress waits until some more requests were answered.
func (l *httpLoad) progress(n *node) {
	n.Helper()
	want := l.done.Load() + 200
	n.eventually(20*time.Second, func() error {
		if got := l.done.Load(); got < want {
			return fmt.Errorf("%d of %d requests", got, want)
		}
		return nil
	})
}

// stop ends the load and returns what went wrong.
func (l *httpLoad) stop() []string {
	l.cancel()
	l.wg.Wait()
	return l.errs
}

// firstOf are some of many errors, a line each.
func firstOf(errs []string) string { return strings.Join(errs[:min(len(errs), 10)], "\n") }

// keepAlive is one worker's connection.
type keepAlive struct {
	l    *httpLoad
	conn net.Conn
	r    *bufio.Reader

	served int // over this connection
}

// perConnection is how many requests a connection carries: what holds for new
// connections is to hold for old ones too, and the other way round.
const perConnection = 20

// unheard is the end of a connection before any byte of an answer.
type unheard struct{ error }

func (c *keepAlive) request() error {
	err := c.once()
	if _, ok := err.(unheard); ok && c.l.retry {
		c.l.retried.Add(1)
		return c.once()
	}
	return err
}

func (c *keepAlive) once() (err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.conn == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if c.conn, err = c.l.host.Dial(ctx, "tcp", c.l.address); err != nil {
			c.conn = nil
			return unheard{fmt.Errorf("connect: %w", err)}
		}
		c.r, c.served = bufio.NewReader(c.conn), 0
	}
	c.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n"); err != nil {
		return unheard{fmt.Errorf("write request: %w", err)}
	}
	if _, err := c.r.Peek(1); err != nil {
		return unheard{fmt.Errorf("wait for an answer: %w", err)}
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %q", r.Status, r.Header.Get("X-Connectd-Reason"), body)
	}
	if c.served++; r.Close || c.served == perConnection {
		c.close()
	}
	return nil
}

func (c *keepAlive) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
