package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	callTimeout = 3 * time.Second
	callPause   = 5 * time.Millisecond  // between calls of one worker
	holdPause   = 20 * time.Millisecond // between lines of a held connection
)

// Load counts calls, each over a connection and after a lookup of its own.
type Load struct {
	OK        int            `json:"ok"`
	Failed    int            `json:"failed"`
	Repeated  int            `json:"repeated"` // GETs that no byte of an answer came to, made once more
	ByServer  map[string]int `json:"byServer"`
	LastError string         `json:"lastError"`
}

// Held is one connection that is kept, with a line every 20 ms.
type Held struct {
	Server string `json:"server"`
	Lines  int    `json:"lines"`
	Error  string `json:"error"` // "" while it goes on
}

// client calls as it is told over HTTP:
//
//	/load?target=T&target=U  begins; T is http://NAME/ or NAME:PORT
//	/stop                    ends the load and says what came of each target
//	/hold?target=NAME:PORT   opens one more connection and keeps it
//	/held                    what came of those so far
type client struct {
	mu     sync.Mutex
	load   map[string]*Load
	held   []*Held
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the load
}

func (c *client) serve() error {
	http.HandleFunc("/load", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(context.Background())
		c.load, c.cancel = map[string]*Load{}, cancel
		for _, target := range r.URL.Query()["target"] {
			l := &Load{ByServer: map[string]int{}}
			c.load[target] = l
			for range 2 {
				c.wg.Go(func() { c.work(ctx, target, l) })
			}
		}
	})
	http.HandleFunc("/stop", func(w http.ResponseWriter, r *http.Request) {
		c.cancel()
		c.wg.Wait()
		json.NewEncoder(w).Encode(c.load)
	})
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		if err := c.hold(r.URL.Query().Get("target")); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	http.HandleFunc("/held", func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		json.NewEncoder(w).Encode(c.held)
	})
	return http.ListenAndServe(":8081", nil)
}

// work calls until ctx ends; a call that has begun then is finished.
func (c *client) work(ctx context.Context, target string, l *Load) {
	for ctx.Err() == nil {
		text, repeated, err := call(target)
		c.mu.Lock()
		if repeated {
			l.Repeated++
		}
		if err != nil {
			l.Failed++
			l.LastError = err.Error()
		} else {
			l.OK++
			server, _, _ := strings.Cut(strings.TrimSpace(text), " ")
			l.ByServer[server]++
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(callPause):
		}
	}
}

// call makes one call. A GET whose connection ends without an answer is made
// once more, as HTTP clients do.
func call(target string) (text string, repeated bool, err error) {
	if !strings.HasPrefix(target, "http://") {
		text, err = line(target)
		return text, false, err
	}
	if text, err = get(target); errors.Is(err, io.EOF) || err != nil && strings.Contains(err.Error(), "reset by peer") {
		repeated = true
		text, err = get(target)
	}
	return text, repeated, err
}

func get(url string) (string, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: callTimeout}).DialContext}
	res, err := (&http.Client{Transport: t, Timeout: 2 * callTimeout}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, body)
	}
	return string(body), err
}

func line(target string) (string, error) {
	conn, err := net.DialTimeout("tcp", target, callTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return ask(conn, bufio.NewReader(conn))
}

func ask(conn net.Conn, r *bufio.Reader) (string, error) {
	conn.SetDeadline(time.Now().Add(callTimeout))
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return "", err
	}
	return r.ReadString('\n')
}

func (c *client) hold(target string) error {
	conn, err := net.DialTimeout("tcp", target, callTimeout)
	if err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	text, err := ask(conn, r)
	if err != nil {
		conn.Close()
		return err
	}
	h := &Held{Server: strings.TrimSpace(text), Lines: 1}
	c.mu.Lock()
	c.held = append(c.held, h)
	c.mu.Unlock()
	go func() {
		defer conn.Close()
		for range time.Tick(holdPause) {
			_, err := ask(conn, r)
			c.mu.Lock()
			if err != nil {
				h.Error = err.Error()
			} else {
				h.Lines++
			}
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return nil
}
