package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How long a client waits. A read is answered from memory; what changes
// something has a bound in the server, which is shorter so that its answer wins.
const (
	readWithin   = 10 * time.Second
	changeWithin = 35 * time.Second
)

// maxAnswer bounds what a client reads, in bytes: 100,000 endpoints are 40 MB.
const maxAnswer = 512 << 20

// Client asks a daemon. Its errors wrap ErrNotRunning if nobody listens, and
// are an *Error if the daemon refused.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client of the daemon on that socket. Each call makes a
// connection of its own, so there is nothing to close.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// Status returns how the daemon is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[*Status](ctx, c, http.MethodGet, "status", nil)
}

// ServiceFilter selects services; what is empty does not restrict.
type ServiceFilter struct {
	Service   string // namespace/discoveryName, or an unambiguous discoveryName
	Namespace string
}

// Services lists services, sorted by name.
func (c *Client) Services(ctx context.Context, f ServiceFilter) ([]Service, error) {
	return call[[]Service](ctx, c, http.MethodGet, "services?"+query("service", f.Service, "namespace", f.Namespace), nil)
}

// EndpointFilter selects endpoints; what is empty does not restrict.
type EndpointFilter struct {
	Service string // as in ServiceFilter
	States  []string
}

// Endpoints lists endpoints, sorted by service and address.
func (c *Client) Endpoints(ctx context.Context, f EndpointFilter) ([]Endpoint, error) {
	q := url.Values{"state": f.States}
	if f.Service != "" {
		q.Set("service", f.Service)
	}
	return call[[]Endpoint](ctx, c, http.MethodGet, "endpoints?"+q.Encode(), nil)
}

// Resolve returns what a task, or each if task is "", gets for a name.
func (c *Client) Resolve(ctx context.Context, name, task string) ([]Resolution, error) {
	return call[[]Resolution](ctx, c, http.MethodGet, "resolve?"+query("name", name, "task", task), nil)
}

// followWithin is how long the server may wait with an answer to Follow; less
// than readWithin.
const followWithin = 8 * time.Second

// Events lists what the daemon remembers of what happened on the node.
func (c *Client) Events(ctx context.Context, f EventFilter) (*Events, error) {
	return c.events(ctx, "", 0, f)
}

// Follow waits for events after a cursor, and returns without any after some
// seconds in which there were none.
func (c *Client) Follow(ctx context.Context, cursor string, f EventFilter) (*Events, error) {
	return c.events(ctx, cursor, followWithin, f)
}

func (c *Client) events(ctx context.Context, after string, wait time.Duration, f EventFilter) (*Events, error) {
	q := url.Values{"after": {after}, "wait": {strconv.FormatFloat(wait.Seconds(), 'f', -1, 64)}, "task": {f.Task}, "kind": f.Kinds}
	return call[*Events](ctx, c, http.MethodGet, "events?"+q.Encode(), nil)
}

// Connections lists connections of tasks, sorted by task and VIP.
func (c *Client) Connections(ctx context.Context, f ConnectionFilter) (*Connections, error) {
	return call[*Connections](ctx, c, http.MethodGet, "connections?"+query("task", f.Task, "service", f.Service), nil)
}

// Tasks lists the tasks of the node, sorted by name.
func (c *Client) Tasks(ctx context.Context) ([]TaskDetail, error) {
	return call[[]TaskDetail](ctx, c, http.MethodGet, "tasks", nil)
}

// Off takes connectd off the node until On, also over restarts.
func (c *Client) Off(ctx context.Context) (*Brake, error) {
	return call[*Brake](ctx, c, http.MethodPost, "off", nil)
}

// On ends an Off.
func (c *Client) On(ctx context.Context) (*Brake, error) {
	return call[*Brake](ctx, c, http.MethodPost, "on", nil)
}

// Drain gives an endpoint no new connections until Undrain, and returns it as
// it then is.
func (c *Client) Drain(ctx context.Context, service string, address netip.AddrPort) (*Endpoint, error) {
	return call[*Endpoint](ctx, c, http.MethodPost, "drain", drainRequest{service, address})
}

// Undrain ends a Drain. The endpoint may go on draining for another reason.
func (c *Client) Undrain(ctx context.Context, service string, address netip.AddrPort) (*Endpoint, error) {
	return call[*Endpoint](ctx, c, http.MethodPost, "undrain", drainRequest{service, address})
}

// Reload makes the daemon read its files again and returns the config then in
// use.
func (c *Client) Reload(ctx context.Context) (*Config, error) {
	return call[*Config](ctx, c, http.MethodPost, "reload", nil)
}

func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q.Encode()
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var value T
	what, _, _ := strings.Cut(path, "?")
	within := readWithin
	if method == http.MethodPost {
		within = changeWithin
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return value, err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://connectd/v1/"+path, content)
	if err != nil {
		return value, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return value, c.explain(err)
	}
	defer resp.Body.Close()
	decode := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		refusal := new(Error)
		if decode.Decode(refusal) != nil || refusal.Message == "" {
			return value, fmt.Errorf("ask for %s on %s: status %s: is it another version of connectd?", what, c.socket, resp.Status)
		}
		return value, refusal
	}
	if err := decode.Decode(&value); err != nil {
		return value, fmt.Errorf("read %s from %s: %w", what, c.socket, err)
	}
	return value, nil
}

// explain leaves the URL out of an error of net/http: it means nothing to a
// user.
func (c *Client) explain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: no socket %s", ErrNotRunning, c.socket)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: nobody answers on %s", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to use %s: run as root", c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the daemon takes connections on %s but does not answer: %w", c.socket, err)
	}
	return fmt.Errorf("ask the daemon on %s: %w", c.socket, err)
}
