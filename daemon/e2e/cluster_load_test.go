package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// gets is what a client saw that sent request after request.
type gets struct {
	OK      map[string]int // by method
	Errors  map[string]int // by method and what went wrong
	By      map[string]int // who answered, by body
	Slowest time.Duration
	Longest time.Duration // between two answers
}

// clientGet sends requests from four workers until its input ends, each method
// in turn.
func clientGet(url string, methods []string) (out gets) {
	out = gets{OK: map[string]int{}, Errors: map[string]int{}, By: map[string]int{}}
	ended := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(ended) }()
	client := &http.Client{Transport: &http.Transport{DialContext: dialer().DialContext, MaxIdleConnsPerHost: 4}, Timeout: 20 * time.Second}
	var mu sync.Mutex
	last := time.Now()
	one := func(method string) {
		begun := time.Now()
		status, body, err := send(client, method, url)
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		out.Slowest = max(out.Slowest, now.Sub(begun))
		switch {
		case err != nil:
			out.Errors[method+" "+short(err)]++
		case status != http.StatusOK:
			out.Errors[fmt.Sprint(method, " ", status)]++
		default:
			out.OK[method]++
			out.By[body]++
			out.Longest = max(out.Longest, now.Sub(last))
			last = now
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				case <-time.After(5 * time.Millisecond):
					one(methods[i%len(methods)])
				}
			}
		})
	}
	wg.Wait()
	return out
}

// send makes a request, with a body if the method is one for that.
func send(c *http.Client, method, url string) (status int, body string, err error) {
	var content io.Reader
	if method == http.MethodPost {
		content = strings.NewReader("what is posted")
	}
	r, err := http.NewRequest(method, url, content)
	if err != nil {
		return 0, "", err
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(b), err
}

// getting runs it on the node's client; stop ends it and returns what it saw.
func (m *member) getting(url string, methods ...string) (stop func() gets) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	m.Cleanup(cancel)
	cmd := m.client.Command(ctx, self, append([]string{"get", url}, methods...)...).In(m.group)
	cmd.Env = append(os.Environ(), clientEnv+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	end := sync.OnceValue(func() error { in.Close(); return <-done })
	m.Cleanup(func() { end() })
	return func() (out gets) {
		m.Helper()
		if err := end(); err != nil {
			m.Fatalf("client: %s: %s", err, &stderr)
		}
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			m.Fatal(err)
		}
		return out
	}
}
