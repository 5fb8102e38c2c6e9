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
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peerCommand is the argument that makes this program a peer: a server or a
// client in a network namespace, told what to do by lines of JSON.
const peerCommand = "peer"

// order is one thing for a peer to do. Exactly one field is set.
type order struct {
	Serve string `json:",omitempty"` // address of the HTTP server to start
	Load  *load  `json:",omitempty"`
	Await *await `json:",omitempty"`
	// Reach is an address at which something is to listen before long, Unary
	// one where a gRPC call is to succeed.
	Reach  string  `json:",omitempty"`
	Unary  string  `json:",omitempty"`
	Hammer *hammer `json:",omitempty"` // make its connections
	Strike bool    `json:",omitempty"` // run it
	Hold   *hold   `json:",omitempty"`
}

// load is a number of HTTP requests, made by clients that each send the next
// one when they have the answer.
type load struct {
	URL            string
	Requests       int
	Clients        int
	NewConnections bool // one for each request
}

// await asks when connects to a UDP address begin to succeed or to fail. They
// make no packet.
type await struct {
	Address string
	Up      bool
}

// done is a peer's answer.
type done struct {
	Took   time.Duration
	At     time.Time
	Result result
	Error  string `json:",omitempty"`
}

// peer is a running peer, seen from the benchmark.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startPeer(netns string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("ip", "netns", "exec", netns, self, peerCommand)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "GOGC=1000") // small heaps: collections would be noise
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start peer in %s: %w", netns, err)
	}
	return &peer{cmd, in, json.NewDecoder(out)}, nil
}

// send begins an order, wait takes its answer.
func (p *peer) send(o order) error { return json.NewEncoder(p.in).Encode(o) }

func (p *peer) wait() (done, error) {
	var d done
	if err := p.out.Decode(&d); err != nil {
		return d, fmt.Errorf("read peer's answer: %w", err)
	}
	if d.Error != "" {
		return d, errors.New(d.Error)
	}
	return d, nil
}

// hammer warms a load up and runs it.
func (p *peer) hammer(h hammer) (result, error) {
	if _, err := p.do(order{Hammer: &h}); err != nil {
		return result{}, err
	}
	d, err := p.do(order{Strike: true})
	return d.Result, err
}

func (p *peer) do(o order) (done, error) {
	if err := p.send(o); err != nil {
		return done{}, err
	}
	return p.wait()
}

// cpu is the CPU time the peer has used. ip-netns execs, so the pid is the
// peer's.
func (p *peer) cpu() (time.Duration, error) { return cpuOfPID(p.cmd.Process.Pid) }

// close ends the peer; it goes by itself when its input ends.
func (p *peer) close() {
	p.in.Close()
	p.cmd.Wait()
}

// runPeer is the peer itself.
func runPeer() error {
	signal.Ignore(os.Interrupt)
	out := json.NewEncoder(os.Stdout)
	var held []net.Conn
	var loaded *striker
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return err
		}
		var d done
		var err error
		switch {
		case o.Serve != "":
			err = serve(o.Serve)
		case o.Load != nil:
			d.Took, err = o.Load.run()
		case o.Await != nil:
			d.At, err = o.Await.run()
		case o.Reach != "":
			err = awaitListener(o.Reach)
		case o.Unary != "":
			err = unary(o.Unary)
		case o.Hammer != nil:
			loaded, err = o.Hammer.warm()
		case o.Strike:
			d.Result, err = loaded.run()
		case o.Hold != nil:
			held, err = o.Hold.run(held)
		}
		if err != nil {
			d.Error = err.Error()
		}
		if err := out.Encode(d); err != nil {
			return err
		}
	}
	return nil
}

// serve answers / with a few bytes and /mib with 1 MiB, while the process
// lives.
func serve(address string) error {
	ln, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	body := make([]byte, 1<<20)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello\n") })
	mux.HandleFunc("/mib", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	})
	go http.Serve(ln, mux)
	return nil
}

func (l *load) run() (time.Duration, error) {
	transport := &http.Transport{DisableKeepAlives: l.NewConnections, MaxIdleConnsPerHost: l.Clients, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	var left atomic.Int64
	left.Store(int64(l.Requests))
	failed := make(chan error, l.Clients)
	begun := time.Now()
	var wg sync.WaitGroup
	for range l.Clients {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for left.Add(-1) >= 0 {
				if err := get(client, l.URL, buf); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	select {
	case err := <-failed:
		return 0, err
	default:
		return took, nil
	}
}

func get(client *http.Client, url string, buf []byte) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
	return err
}

// awaitPause is the time between two looks: what the answer may be late by.
const awaitPause = 100 * time.Microsecond

func (a *await) run() (time.Time, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(awaitPause) {
		conn, err := new(net.Dialer).DialContext(context.Background(), "udp4", a.Address)
		now := time.Now()
		if err == nil {
			conn.Close()
		} else if !errors.Is(err, unix.EHOSTUNREACH) {
			return now, err
		}
		if (err == nil) == a.Up {
			return now, nil
		}
	}
	return time.Time{}, fmt.Errorf("wait for connects to %s: no change in 10 s", a.Address)
}
