// App is what containers of the tests run: a server that says who it is, and
// clients that say what became of their calls. It is static, for its images
// have nothing else, and ends at once on SIGTERM.
//
//	app serve ADDRESS NAME [DELAY]  HTTP; DELAY before it listens
//	app early URL                   calls with its first instruction, then until it works; a JSON line
//	app load URL DURATION           new connections, one after the other, until SIGTERM at most; a JSON line
//	app get URL                     the body
//	app wait                        until a signal
//	app drain DURATION              until SIGTERM, and as long after it
//	app requests URL DURATION       GETs over kept connections, eight at once, until SIGTERM at most; a JSON line
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "serve":
		return serve(args[1], args[2], args[3:])
	case len(args) == 2 && args[0] == "early":
		return json.NewEncoder(os.Stdout).Encode(early(args[1]))
	case len(args) == 3 && args[0] == "load":
		d, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(load(args[1], d))
	case len(args) == 2 && args[0] == "get":
		body, err := get(args[1])
		fmt.Println(body)
		return err
	case len(args) == 1 && args[0] == "wait":
		return drain("0s")
	case len(args) == 2 && args[0] == "drain":
		return drain(args[1])
	case len(args) == 3 && args[0] == "requests":
		d, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(requests(args[1], d))
	}
	return fmt.Errorf("unknown %q", args)
}

func drain(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	time.Sleep(d)
	return nil
}

func serve(address, name string, delay []string) error {
	if len(delay) > 0 {
		d, err := time.ParseDuration(delay[0])
		if err != nil {
			return err
		}
		time.Sleep(d) // a program that takes long to start
	}
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond) // so that some requests are in flight when it ends
		fmt.Fprint(w, name)
	}))
}

// Outcome is what became of calls; each has a connection and a lookup of its own.
type Outcome struct {
	OK     int
	Errors map[string]int
	Early  string        // what the very first call came to, "" is well
	After  time.Duration // from the first instruction to the first call that worked
	Bodies map[string]int
}

func get(url string) (string, error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext}
	return fetch(&http.Client{Transport: t, Timeout: 10 * time.Second}, url)
}

func fetch(c *http.Client, url string) (string, error) {
	res, err := c.Get(url)
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

func early(url string) (o Outcome) {
	begun := time.Now()
	for first := true; time.Since(begun) < 10*time.Second; first = false {
		body, err := get(url)
		if err == nil {
			o.OK, o.After, o.Bodies = 1, time.Since(begun), map[string]int{body: 1}
			return o
		}
		if first {
			o.Early = err.Error()
		}
		time.Sleep(time.Millisecond) // not to be a flood
	}
	return o
}

// within ends after d, or with SIGTERM.
func within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		cancel()
	}()
	return ctx
}

func load(url string, d time.Duration) Outcome {
	o := Outcome{Errors: map[string]int{}, Bodies: map[string]int{}}
	for ctx := within(d); ctx.Err() == nil; {
		body, err := get(url)
		if err != nil {
			o.Errors[err.Error()]++
			continue
		}
		o.OK++
		o.Bodies[body]++
	}
	return o
}

// requests are what a client of a library with a pool makes: connections are
// kept, and what is sent again is told by the body.
func requests(url string, d time.Duration) Outcome {
	const workers = 8
	o := Outcome{Errors: map[string]int{}, Bodies: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	t := &http.Transport{MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers} // one each, or a dial that was not waited for is one more
	c := http.Client{Transport: t, Timeout: 10 * time.Second}
	ctx := within(d)
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				body, err := fetch(&c, url)
				mu.Lock()
				if err != nil {
					o.Errors[err.Error()]++
				} else {
					o.OK++
					o.Bodies[body]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return o
}
