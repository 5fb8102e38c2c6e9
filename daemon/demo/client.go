package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	requestTimeout = 2 * time.Second
	holdPause      = 20 * time.Millisecond // between requests of a held connection
	loadPause      = 5 * time.Millisecond  // between connections of one worker
)

// longLived is the state of the client process.
type longLived struct {
	mu     sync.Mutex
	load   loadStats
	held   []*heldStats
	cancel context.CancelFunc // of the load
	wg     sync.WaitGroup
}

// serveClient is the client process. It ends when in does.
func serveClient(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	c := &longLived{cancel: func() {}, load: loadStats{ByServer: map[string]int{}}}
	defer c.wg.Wait()
	defer cancel()
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var req request
		err := dec.Decode(&req)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := enc.Encode(c.serve(ctx, req)); err != nil {
			return err
		}
	}
}

func (c *longLived) serve(ctx context.Context, req request) (r reply) {
	var err error
	switch req.Op {
	case "resolve":
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		r.Addresses, err = (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip4", req.Target)
	case "get":
		r.Text, r.Peer, err = getOnce(ctx, req.Target)
	case "udp":
		r.Text, err = askUDP(req.Target)
	case "load":
		lctx, cancel := context.WithCancel(ctx)
		c.cancel = cancel
		for range req.Count {
			c.wg.Go(func() { c.work(lctx, req.Target) })
		}
	case "stop":
		c.cancel()
	case "hold":
		err = c.hold(ctx, req.Target, req.Count)
	case "stats":
		r.Load, r.Held = c.stats()
	default:
		err = fmt.Errorf("unknown op %q", req.Op)
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func (c *longLived) stats() (loadStats, []heldStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	load := c.load
	load.ByServer = maps.Clone(c.load.ByServer)
	held := make([]heldStats, len(c.held))
	for i, h := range c.held {
		held[i] = *h
	}
	return load, held
}

// work makes one connection after another.
func (c *longLived) work(ctx context.Context, target string) {
	for ctx.Err() == nil {
		text, _, err := getOnce(ctx, target)
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		if err != nil {
			c.load.Failed++
			c.load.LastFailure, c.load.LastError = time.Now(), err.Error()
		} else {
			c.load.OK++
			c.load.ByServer[firstWord(text)]++
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(loadPause):
		}
	}
}

// hold opens connections and keeps them busy until they break or the process
// ends.
func (c *longLived) hold(ctx context.Context, target string, count int) error {
	for range count {
		conn, err := dial(ctx, "tcp", target)
		if err != nil {
			return err
		}
		r := bufio.NewReader(conn)
		text, err := get(conn, r, true)
		if err != nil {
			conn.Close()
			return err
		}
		h := &heldStats{Server: firstWord(text), Requests: 1}
		c.mu.Lock()
		c.held = append(c.held, h)
		c.mu.Unlock()
		c.wg.Go(func() { c.keep(ctx, h, conn, r) })
	}
	return nil
}

func (c *longLived) keep(ctx context.Context, h *heldStats, conn net.Conn, r *bufio.Reader) {
	defer conn.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(holdPause):
		}
		_, err := get(conn, r, true)
		c.mu.Lock()
		if err != nil {
			h.Ended, h.Error = time.Now(), err.Error()
		} else {
			h.Requests++
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func dial(ctx context.Context, network, target string) (net.Conn, error) {
	d := net.Dialer{Timeout: requestTimeout, Resolver: &net.Resolver{PreferGo: true}}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, target)
}

func getOnce(ctx context.Context, target string) (text, peer string, err error) {
	conn, err := dial(ctx, "tcp4", target)
	if err != nil {
		return "", "", err
	}
	defer conn.Close()
	text, err = get(conn, bufio.NewReader(conn), false)
	return text, conn.RemoteAddr().String(), err
}

// get makes one request.
func get(conn net.Conn, r *bufio.Reader, keepAlive bool) (string, error) {
	conn.SetDeadline(time.Now().Add(requestTimeout))
	connection := "close"
	if keepAlive {
		connection = "keep-alive"
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: demo\r\nConnection: %s\r\n\r\n", connection); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(body), err
}

// askUDP asks over a connected socket.
func askUDP(target string) (string, error) {
	conn, err := dial(context.Background(), "udp4", target)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

// firstWord is the name that a server answers with.
func firstWord(text string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	return word
}
