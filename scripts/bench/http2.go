package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// http2Load is traffic that h2load makes.
type http2Load struct {
	name        string
	connections int
	streams     int // at once on each
}

var http2Loads = []http2Load{
	{"1 connection, 1 stream", 1, 1},
	{"8 connections, 16 streams", 8, 16},
}

func measureHTTP2(ctx context.Context, st *stage, s scale) ([]row, error) {
	return measureStreams(ctx, st, s, frontHTTP2)
}

func measureGRPC(ctx context.Context, st *stage, s scale) ([]row, error) {
	return measureStreams(ctx, st, s, frontGRPC)
}

func measureStreams(ctx context.Context, st *stage, s scale, front int) ([]row, error) {
	what := map[int]string{frontHTTP2: "HTTP/2", frontGRPC: "gRPC"}[front]
	all := []*contender{&st.connectd, &st.haproxy, &st.again, &st.reverse}
	var rows []row
	for _, l := range http2Loads {
		requests := map[*contender]int{}
		for _, c := range all {
			n, err := calibrateStreams(ctx, st, l, c.front[front], s.hammer)
			if err != nil {
				return rows, fmt.Errorf("%s, %s, %s: %w%s", what, l.name, c.name, err, st.said())
			}
			requests[c] = n
		}
		seen, err := rounds(ctx, max(s.rounds/2, 2), all, func(c *contender) (shot, error) {
			return measured(c, func() (int, shot, error) {
				rate, err := st.h2load(ctx, l, c.front[front], requests[c])
				return requests[c], shot{rate: rate}, err
			})
		})
		if err != nil {
			return rows, fmt.Errorf("%s, %s: %w%s", what, l.name, err, st.said())
		}
		rows = append(rows, forwardRows(st, seen, what+", "+l.name, bars{haproxy: atLeast(0.9), reverse: atLeast(2)})...)
	}
	return rows, nil
}

// calibrateStreams finds how many requests take about as long as a load should.
func calibrateStreams(ctx context.Context, st *stage, l http2Load, address string, want time.Duration) (int, error) {
	for requests := 256; ; requests *= 4 {
		rate, err := st.h2load(ctx, l, address, requests)
		if err != nil {
			return 0, err
		}
		if seconds := float64(requests) / rate; seconds > want.Seconds()/8 {
			return max(int(rate*want.Seconds()), l.connections*l.streams), nil
		}
	}
}

// h2load makes requests, of which none may fail, and returns their rate. At
// frontGRPC's address they are unary calls.
func (st *stage) h2load(ctx context.Context, l http2Load, address string, requests int) (float64, error) {
	args := []string{"-n", strconv.Itoa(requests), "-c", strconv.Itoa(l.connections), "-m", strconv.Itoa(l.streams), "-t", "1"}
	path := "/"
	if st.isGRPC(address) {
		body := filepath.Join(st.dir, "message")
		if err := os.WriteFile(body, make([]byte, 5), 0o644); err != nil { // an empty message, not compressed
			return 0, err
		}
		path = "/grpc.health.v1.Health/Check"
		args = append(args, "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers")
	}
	out, err := output(ctx, st.netns("client"), "h2load", append(args, "http://"+address+path)...)
	if err != nil {
		return 0, err
	}
	return parseH2load(out, requests)
}

func (st *stage) isGRPC(address string) bool {
	for _, c := range st.contenders() {
		if c.front[frontGRPC] == address {
			return true
		}
	}
	return false
}

// parseH2load reads "finished in 503.21ms, 39745.61 req/s, 1.82MB/s" and
// "status codes: 20000 2xx, 0 3xx, 0 4xx, 0 5xx".
func parseH2load(out string, requests int) (float64, error) {
	if !strings.Contains(out, fmt.Sprintf("status codes: %d 2xx, ", requests)) || !strings.Contains(out, " 0 failed, 0 errored, 0 timeout") {
		return 0, fmt.Errorf("h2load: not %d answers of 200: %s", requests, strings.TrimSpace(out))
	}
	_, after, _ := strings.Cut(out, "finished in ")
	_, after, _ = strings.Cut(after, ", ")
	number, _, ok := strings.Cut(after, " req/s")
	rate, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("h2load: no rate in: %s", strings.TrimSpace(out))
	}
	return rate, nil
}
