package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"connectd/pkg/control"
	"connectd/pkg/netns"
	"connectd/pkg/testutil/docker"
)

// inside makes calls from a task's network namespace.
func (i *instance) inside(t *docker.Task) *netns.Handle {
	i.Helper()
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", t.Container("main").PID))
	if err != nil {
		i.Fatal(err)
	}
	i.Cleanup(func() { ns.Close() })
	return ns
}

// ready asks as a container's health check does.
func ready(ns *netns.Handle) (status int, body string, err error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = ns.Do(func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
				return err
			})
			return conn, err
		}}}
	res, err := c.Get("http://127.254.255.254/ready")
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// TestECSLife: a task is ready when others may call it, its name goes on
// resolving without the daemon, and what is gone leaves nothing.
func TestECSLife(t *testing.T) {
	i := newInstance(t, "namespaces: [prod]")
	i.start()
	orders := i.task("awsvpc", "orders", serves("orders", 8080, ""), "serve", ":8080", "orders", "2s")
	ns := i.inside(orders)
	i.eventually(20*time.Second, func() error {
		status, body, err := ready(ns)
		if err == nil && (status != http.StatusServiceUnavailable || !strings.Contains(body, "prod/orders")) {
			t.Errorf("before it listens: %d %q", status, body)
		}
		return err
	})
	i.active("prod/orders", 1)
	i.eventually(10*time.Second, func() error {
		if status, body, err := ready(ns); err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %q %v", status, body, err)
		}
		return nil
	})

	// Bad neighbours are told of and stop nobody.
	i.task("awsvpc", "bad", map[string]string{"connectd.serviceConnect": `{"enabled": "yes"}`}, "wait")
	i.task("awsvpc", "tls", map[string]string{"connectd.serviceConnect": `{"enabled": true, "namespace": "prod", "services": [{"portName": "p", "tls": {"issuerCertificateAuthority": {"awsPcaAuthorityArn": "x"}}}]}`,
		"connectd.ports": `[{"name": "p", "containerPort": 80}]`}, "wait")
	i.task("awsvpc", "loop", serves("loop", 8081, ""), "serve", "127.0.0.1:8081", "loop")
	for family, reason := range map[string]string{"bad": "invalid_field", "tls": "tls", "loop": "loopback_only"} {
		i.eventually(10*time.Second, func() error { return i.event(control.EventProblem, family+"/", reason) })
	}

	// The load resolves before each connect, from the hosts file while nobody
	// answers DNS.
	load := i.task("awsvpc", "load", callsOnly, "load", "http://orders/", "10s")
	i.eventually(10*time.Second, func() error {
		pause := load.Pauses[0].ID
		got, err := i.engine.ContainerInspect(t.Context(), pause, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		text, err := os.ReadFile(got.Container.HostsPath)
		if err == nil && !strings.Contains(string(text), "\torders\n") {
			err = fmt.Errorf("hosts file %q", text)
		}
		return err
	})
	i.daemon.kill()
	if status, body, err := ready(ns); err == nil {
		t.Errorf("without the daemon /ready says %d %q", status, body)
	}
	o := i.outcome(load, "main")
	if o.OK == 0 || len(o.Errors) > 0 {
		t.Errorf("without the daemon: %+v", o)
	}
	t.Logf("without the daemon: %d calls", o.OK)
	i.start()
	if status, body, err := ready(ns); err != nil || status != http.StatusOK {
		t.Errorf("after a restart /ready says %d %q %v", status, body, err)
	}
	ns.Close()
	if err := i.engine.StopTask(t.Context(), orders, 2*time.Second); err != nil {
		t.Fatal(err)
	}
	i.active("prod/orders", 0)
}

// event waits for one of a kind whose task begins so.
func (i *instance) event(kind control.EventKind, task, reason string) error {
	list, err := i.control().Events(context.Background(), control.EventFilter{})
	if err != nil {
		return err
	}
	for _, e := range list.Events {
		if e.Kind == kind && strings.HasPrefix(e.Task, task) && e.Reason == reason {
			return nil
		}
	}
	return fmt.Errorf("no event of %s, %s, in %+v", task, reason, list.Events)
}
