package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestHTTPTimeouts: a request whose answer does not begin in time is answered
// 504 and taken back from the endpoint; one that has begun goes on, as long as
// something moves.
func TestHTTPTimeouts(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	const request, idle = 300 * time.Millisecond, 1500 * time.Millisecond
	s.begin(service("orders", "appProtocol: http\ntimeout: {perRequestTimeoutSeconds: 0.3, idleTimeoutSeconds: 1.5}", "a"))
	address := s.at80("orders")
	c := httpClient(t, s.web)
	cancelled := make(chan struct{}, 1)
	webs["a"].answer(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/never":
			<-r.Context().Done()
			cancelled <- struct{}{}
		case "/events": // slower than the request timeout, quicker than the idle one
			for i := range 4 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				pause(r.Context(), 2*request)
			}
		case "/stuck":
			fmt.Fprint(w, "data: 0\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			cancelled <- struct{}{}
		}
	})
	taken := func(what string) {
		t.Helper()
		select {
		case <-cancelled:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the endpoint still works on it", what)
		}
	}

	begun := time.Now()
	r, err := c.Get("http://" + address + "/never")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusGatewayTimeout || r.Header.Get("X-Connectd-Reason") != "timeout" {
		t.Errorf("never answered: %d %v", r.StatusCode, r.Header)
	}
	if took := time.Since(begun); took < request {
		t.Errorf("504 after %s", took)
	}
	taken("504")

	if status, body, err := get(c, "http://"+address+"/events"); status != 200 || body != "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n" {
		t.Errorf("events: %d %q (%v)", status, body, err)
	}

	begun = time.Now()
	status, body, err := get(c, "http://"+address+"/stuck")
	if status != 200 || body != "data: 0\n\n" || err == nil {
		t.Errorf("an answer that stops moving: %d %q, want a cut: %v", status, body, err)
	}
	if took := time.Since(begun); took < idle {
		t.Errorf("cut after %s", took)
	}
	taken("cut")

	// Between requests: a client that says nothing more.
	conn, err := s.web.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: orders\r\n\r\n")
	reader := bufio.NewReader(conn)
	if r, err = http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, r.Body)
	begun = time.Now()
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v, want its end", err)
	}
	if took := time.Since(begun); took < idle-100*time.Millisecond {
		t.Errorf("an idle connection was ended after %s", took)
	}

	slow, err := s.web.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	// A head that never ends has ten seconds, and then is answered.
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: ord")
	slow.SetDeadline(time.Now().Add(30 * time.Second))
	if r, err = http.ReadResponse(bufio.NewReader(slow), nil); err != nil || r.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a head that never ends: %v, %v", r, err)
	}
}

// TestHTTPClientLeaves: an endpoint hears of it when a client has reset its
// connection. One that has only ended its own side waits for its answer.
func TestHTTPClientLeaves(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http", "a"))
	address := s.at80("orders")
	arrived, answer, cancelled := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
	webs["a"].answer(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-answer:
			fmt.Fprint(w, "late")
		case <-r.Context().Done():
			cancelled <- struct{}{}
		}
	})
	ask := func() *net.TCPConn {
		t.Helper()
		conn, err := s.web.Dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
		<-arrived
		return conn.(*net.TCPConn)
	}

	conn := ask()
	defer conn.Close()
	conn.CloseWrite()
	answer <- struct{}{}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("after a half-close: %s", err)
	}
	if body, err := io.ReadAll(r.Body); string(body) != "late" {
		t.Errorf("after a half-close: %q, %v", body, err)
	}

	conn = ask()
	conn.SetLinger(0)
	conn.Close()
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("after a reset the endpoint still works on it")
	}
}
