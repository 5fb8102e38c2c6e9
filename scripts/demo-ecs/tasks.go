package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"connectd/daemon/demo/report"
	"connectd/pkg/testutil/docker"
)

// The labels of the tasks are what their services had as serviceConnectConfiguration,
// and the port mappings of their task definitions, pasted.
const (
	ordersConnect = `{"enabled": true, "namespace": "shop", "services": [` +
		`{"portName": "http", "discoveryName": "orders", "clientAliases": [{"port": 80, "dnsName": "orders"}]}, ` +
		`{"portName": "feed", "discoveryName": "feed", "clientAliases": [{"port": 9000, "dnsName": "feed"}]}]}`
	ordersPorts = `[{"name": "http", "containerPort": 8080, "protocol": "tcp", "appProtocol": "http"}, ` +
		`{"name": "feed", "containerPort": 9000, "protocol": "tcp"}]`
	clientConnect = `{"enabled": true, "namespace": "shop"}`
	// wrongConnect has a word where JSON wants true or false.
	wrongConnect = `{"enabled": "yes", "namespace": "shop"}`
)

const (
	connectLabel = "connectd.serviceConnect"
	portsLabel   = "connectd.ports"
)

const (
	ordersURL = "http://orders/"
	feedAddr  = "feed:9000"
	readyURL  = "http://127.254.255.254/ready"
)

// drainCommand is the documented recipe, which sleeps 5 s there: the time that
// other nodes need. It is stopped first, for it depends on the application.
var drainCommand = []string{"sh", "-c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 3600 & wait $!; done"}

// startOrders starts a task of orders beside its drain container. Its program
// waits for a file, if one is named, before it listens.
func (d *demo) startOrders(ctx context.Context, name string, revision int, file ...string) (*docker.Task, error) {
	return d.node.task(ctx, "awsvpc", "orders", revision,
		docker.ContainerSpec{
			Name: "orders", Cmd: append([]string{"/app", "serve", name}, file...),
			Labels: map[string]string{connectLabel: ordersConnect, portsLabel: ordersPorts},
		},
		docker.ContainerSpec{Name: "drain", Cmd: drainCommand},
	)
}

// startShell starts a task that waits to be told what to do.
func (d *demo) startShell(ctx context.Context, mode, family string, labels map[string]string) (*docker.Task, error) {
	t, err := d.node.task(ctx, mode, family, 1, docker.ContainerSpec{Name: "main", Cmd: drainCommand, Labels: labels})
	if t != nil {
		d.others = append(d.others, t)
	}
	return t, err
}

// wget is a call as a shell makes it.
func (d *demo) wget(ctx context.Context, t *docker.Task, target string) (string, error) {
	return d.node.exec(ctx, t, "timeout", "5", "wget", "-q", "-Y", "off", "-O", "-", target)
}

// calls waits until a task has got an answer by name, and shows it.
func (d *demo) calls(ctx context.Context, who string, t *docker.Task, want string) error {
	var text string
	err := report.Until(ctx, 10*time.Second, func() (err error) {
		text, err = d.wget(ctx, t, ordersURL)
		return err
	})
	if err == nil && !strings.HasPrefix(text, want) {
		err = fmt.Errorf("%s was told %q", who, text)
	}
	if err == nil {
		d.Say("%-28s wget %s says: %s", who, ordersURL, text)
	}
	return err
}

// ready asks connectd from inside a task.
func (d *demo) ready(ctx context.Context, t *docker.Task) (string, error) {
	return d.node.exec(ctx, t, "/app", "get", readyURL)
}

// awaitReady waits until it says 200.
func (d *demo) awaitReady(ctx context.Context, t *docker.Task) error {
	return report.Until(ctx, 20*time.Second, func() error {
		text, err := d.ready(ctx, t)
		if err == nil && !strings.HasPrefix(text, "200 ") {
			err = errors.New(text)
		}
		return err
	})
}

// load is Load of package app, held its Held.
type load struct {
	OK, Failed, Repeated int
	ByServer             map[string]int
	LastError            string
}

type held struct {
	Server string
	Lines  int
	Error  string
}

// tell has the client task do something; what it answers goes to value unless
// that is nil.
func (d *demo) tell(ctx context.Context, path string, targets []string, value any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(d.web.Addr.Addr().String(), "8081"), Path: path, RawQuery: url.Values{"target": targets}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	// From the node, as the agent's health checks would come.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: d.node.engine.NS().DialMarked}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("tell the client: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	if err != nil || value == nil {
		return err
	}
	return json.Unmarshal(body, value)
}

// underLoad does something while the client calls, and returns what came of the
// calls, of which there must be some before and after.
func (d *demo) underLoad(ctx context.Context, do func() error) (map[string]load, error) {
	if err := d.tell(ctx, "/load", []string{ordersURL, feedAddr}, nil); err != nil {
		return nil, err
	}
	err := report.Pause(ctx, 500*time.Millisecond)
	if err == nil {
		err = do()
	}
	if err == nil {
		err = report.Pause(ctx, 500*time.Millisecond)
	}
	var got map[string]load
	err = errors.Join(err, d.tell(context.WithoutCancel(ctx), "/stop", nil, &got))
	if err != nil {
		return nil, err
	}
	for _, target := range []string{ordersURL, feedAddr} {
		l := got[target]
		d.Say("%-15s %4d calls, %d failed, %d made again: %s", target, l.OK+l.Failed, l.Failed, l.Repeated, counts(l.ByServer))
		if l.Failed > 0 || l.OK < 50 {
			err = fmt.Errorf("of calls to %s %d failed and %d did not: %s", target, l.Failed, l.OK, l.LastError)
		}
	}
	return got, err
}

// counts shows numbers by name.
func counts(m map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, fmt.Sprintf("%s %d", name, m[name]))
	}
	return strings.Join(all, ", ")
}

// heldGoOn checks that connections which the client keeps have not ended, and
// that lines pass.
func (d *demo) heldGoOn(ctx context.Context, want int) error {
	var before, now []held
	if err := d.tell(ctx, "/held", nil, &before); err != nil {
		return err
	}
	return report.Until(ctx, 5*time.Second, func() error {
		if err := d.tell(ctx, "/held", nil, &now); err != nil {
			return err
		}
		if len(now) != want {
			return fmt.Errorf("%d connections are kept, want %d", len(now), want)
		}
		for i, h := range now {
			if h.Error != "" {
				return fmt.Errorf("a kept connection broke, %w: %s", report.ErrEnded, h.Error)
			}
			if h.Lines <= before[i].Lines {
				return errors.New("nothing passes over a kept connection")
			}
		}
		return nil
	})
}
