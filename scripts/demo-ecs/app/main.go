// App is what the tasks of the demo run. It is static, for its image has little
// else, and ends at once on SIGTERM: draining is not its business.
//
//	app serve NAME [FILE]  HTTP at :8080 and lines at :9000; waits until there is FILE
//	app client             calls as it is told at :8081
//	app get URL            the status and the body
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
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
	case len(args) >= 2 && args[0] == "serve":
		if len(args) > 2 {
			for { // a program that takes long to start
				if _, err := os.Stat(args[2]); err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		return serve(args[1])
	case len(args) == 1 && args[0] == "client":
		return new(client).serve()
	case len(args) == 2 && args[0] == "get":
		res, err := http.Get(args[1])
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		fmt.Println(res.StatusCode, strings.TrimSpace(string(body)))
		return err
	}
	return fmt.Errorf("unknown %q", args)
}

// serve says its name and whom it sees, in both protocols.
func serve(name string) error {
	feed, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := feed.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for s := bufio.NewScanner(conn); s.Scan(); {
					fmt.Fprintln(conn, name)
				}
			}()
		}
	}()
	return http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond) // so that some requests are in flight when it ends
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s sees %s\n", name, host)
	}))
}
