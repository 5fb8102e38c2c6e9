package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// get asks the daemon's HTTP server, from the node.
func (n *node) get(path string) (code int, body string, err error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return n.host.Dial(ctx, network, address)
		},
	}}
	resp, err := client.Get("http://127.0.0.1:9464" + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// scrape returns the samples of a metric by their labels as written.
func (n *node) scrape(name string) map[string]float64 {
	n.Helper()
	code, body, err := n.get("/metrics")
	if err != nil || code != http.StatusOK {
		n.Fatalf("scrape: %d %v", code, err)
	}
	out := map[string]float64{}
	for sc := bufio.NewScanner(strings.NewReader(body)); sc.Scan(); {
		rest, ok := strings.CutPrefix(sc.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		i := strings.LastIndexByte(rest, ' ')
		v, err := strconv.ParseFloat(rest[i+1:], 64)
		if err != nil {
			n.Fatalf("parse %q: %s", sc.Text(), err)
		}
		out[rest[:i]] = v
	}
	return out
}

// metric sums the samples of a metric that have all these labels, given as
// name, value, name, value.
func (n *node) metric(name string, labels ...string) (sum float64) {
	n.Helper()
samples:
	for have, v := range n.scrape(name) {
		for i := 0; i < len(labels); i += 2 {
			if !strings.Contains(have, fmt.Sprintf("%s=%q", labels[i], labels[i+1])) {
				continue samples
			}
		}
		sum += v
	}
	return sum
}
