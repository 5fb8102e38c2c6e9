package control

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// narrow serves with room for one connection, so that a request is answered
// only once the server is rid of the one before.
func narrow(t *testing.T, b Backend, set func(*limits)) (socket string) {
	t.Helper()
	socket = socketPath(t)
	s := mustListen(t, socket, b)
	s.limits.conns = 1
	set(&s.limits)
	serve(t, s)
	return socket
}

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func TestSilentClientIsDropped(t *testing.T) {
	socket := narrow(t, newNode().backend(), func(l *limits) { l.read = 30 * time.Millisecond })
	for _, head := range []string{"", "GET /v1/status HTTP/1.1\r\nHos", "POST /v1/drain HTTP/1.1\r\nHost: c\r\nContent-Length: 99\r\n\r\n{"} {
		conn := dial(t, socket)
		io.WriteString(conn, head)
		if _, err := NewClient(socket).Status(t.Context()); err != nil {
			t.Errorf("after %q: %s", head, err)
		}
	}
}

func TestClientThatNeverReadsIsDropped(t *testing.T) {
	b := newNode().backend()
	big := make([]Service, 40000) // several times what a socket buffers
	b.Services = func() []Service { return big }
	socket := narrow(t, b, func(l *limits) { l.write = 100 * time.Millisecond })
	conn := dial(t, socket)
	io.WriteString(conn, "GET /v1/services HTTP/1.1\r\nHost: c\r\n\r\n")
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Error(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("the whole answer arrived: the client was not dropped while it did not read")
	}
}

func TestRubbish(t *testing.T) {
	n := newNode()
	socket := narrow(t, n.backend(), func(*limits) {})
	post := func(body string) string {
		return "POST /v1/drain HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	for _, tt := range []struct {
		name, request string
		want          int
	}{
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400},
		{"bad version", "GET / HTTP/9.9\r\n\r\n", 505},
		{"long header", "GET /v1/status HTTP/1.1\r\nHost: c\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 431},
		{"long path", "GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: c\r\n\r\n", 431},
		{"unknown path", "GET /v2/status HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 404},
		{"wrong method", "DELETE /v1/status HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 405},
		{"drain by GET", "GET /v1/drain HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 405},
		{"no body", post(""), 400},
		{"body is not JSON", post("{"), 400},
		{"body of another type", post(`["prod/orders"]`), 400},
		{"bad address", post(`{"service":"prod/orders","address":"10.66.0.3"}`), 400},
		{"long body", post(`{"service":"` + strings.Repeat("x", 1<<20) + `"}`), 400},
		{"deep body", post(strings.Repeat("[", 4000)), 400},
		{"bad query", "GET /v1/endpoints?state=%zz&;=& HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := dial(t, socket)
			go io.WriteString(conn, tt.request) // the server may stop reading before its end
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			defer resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("got status %s, want %d", resp.Status, tt.want)
			}
		})
	}
	if n.endpoints[1].State != "active" {
		t.Error("rubbish drained an endpoint")
	}
	if _, err := NewClient(socket).Status(t.Context()); err != nil {
		t.Errorf("after all that: %s", err)
	}
}

func TestPanicInBackendEndsOnlyThatRequest(t *testing.T) {
	b := newNode().backend()
	b.Services = func() []Service { panic("defect") }
	c := serving(t, b)
	if _, err := c.Services(t.Context(), ServiceFilter{}); err == nil {
		t.Error("no error")
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("after the panic: %s", err)
	}
}

func TestSlowWorkIsCut(t *testing.T) {
	b := newNode().backend()
	b.Reload = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	socket := narrow(t, b, func(l *limits) { l.work = 20 * time.Millisecond })
	_, err := NewClient(socket).Reload(t.Context())
	if got, ok := errors.AsType[*Error](err); !ok || got.Code != CodeFailed {
		t.Errorf("got %v, want an Error with code failed", err)
	}
}

func TestStop(t *testing.T) {
	socket := socketPath(t)
	b := newNode().backend()
	entered := make(chan struct{})
	b.Reload = func(ctx context.Context) error { close(entered); <-ctx.Done(); return errors.New("stopping") }
	stop := serve(t, mustListen(t, socket, b))
	dial(t, socket) // must not hold it up
	answer := make(chan error, 1)
	go func() {
		_, err := NewClient(socket).Reload(t.Context())
		answer <- err
	}()
	<-entered
	if err := stop(); err != nil {
		t.Errorf("Serve: %s", err)
	}
	if err := <-answer; err == nil || err.Error() != "stopping" {
		t.Errorf("request in flight: got %v, want the backend's answer", err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file: %v, want none", err)
	}
	if _, err := NewClient(socket).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the stop: got %v, want ErrNotRunning", err)
	}
}

func TestListenerThatBreaks(t *testing.T) {
	s := mustListen(t, socketPath(t), Backend{})
	s.Close()
	if err := s.Serve(t.Context()); err == nil {
		t.Error("Serve on a closed socket: no error")
	}
}
