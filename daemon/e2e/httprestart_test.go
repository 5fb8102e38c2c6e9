package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

// forwarded has a server say whether a request came through the forwarder.
func forwarded(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, r.Header.Get("X-Request-Id") != "")
}

// isForwarded asks such a server over a new connection.
func isForwarded(h *testutil.Host, address string, within time.Duration) (bool, error) {
	c := &http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true, DialContext: h.Dial}}
	_, body, err := get(c, "http://"+address+"/")
	return body == "true", err
}

// TestHTTPWithoutDaemon: after kill -9 new connections go straight to an
// endpoint; after a restart requests are the forwarder's again.
func TestHTTPWithoutDaemon(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http", "a"))
	address := s.at80("orders")
	webs["a"].answer(forwarded)
	check := func(want bool) {
		t.Helper()
		if got, err := isForwarded(s.web, address, 10*time.Second); err != nil || got != want {
			t.Errorf("went through the forwarder: %v (%v), want %v", got, err, want)
		}
	}
	check(true)
	s.daemon.kill()
	check(false)
	s.start()
	check(true)
	s.daemon.stop()
	check(false)
	s.start()
	check(true)
}

// TestHTTPRestartUnderLoad: a graceful restart loses no request of clients that
// go on.
func TestHTTPRestartUnderLoad(t *testing.T) {
	s, _ := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	l := s.requesting(s.web, s.at80("orders"), 8, true)
	for range 3 {
		l.progress(s.node)
		s.daemon.stop()
		l.progress(s.node) // nobody is there
		s.start()
		l.progress(s.node)
	}
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	t.Logf("%d requests, %d sent once more", l.done.Load(), l.retried.Load())
}

// TestHTTPKilledUnderLoad: kill -9 costs no more than what is in flight, and
// nothing of clients that repeat a request that nothing was heard of.
func TestHTTPKilledUnderLoad(t *testing.T) {
	const workers, rounds = 8, 3
	s, _ := newHTTPShop(t, "a", "b")
	s.begin(service("orders", "appProtocol: http", "a", "b"))
	address := s.at80("orders")
	again, once := s.requesting(s.web, address, workers, true), s.requesting(s.web, address, workers, false)
	for round := range rounds {
		for range 2 {
			again.progress(s.node)
			once.progress(s.node)
		}
		before := once.failures()
		s.daemon.kill()
		for range 2 { // nobody is there
			again.progress(s.node)
			once.progress(s.node)
		}
		s.start()
		again.progress(s.node)
		once.progress(s.node)
		// One request, or one connection that is being made, for each worker.
		if failed := once.failures() - before; failed > workers {
			t.Errorf("round %d: %d requests of %d workers failed", round, failed, workers)
		}
	}
	if errs := again.stop(); len(errs) > 0 {
		t.Errorf("with a second attempt: %d requests failed, first ones:\n%s", len(errs), firstOf(errs))
	}
	errs := once.stop()
	if len(errs) == 0 {
		t.Error("nothing was in flight: this test shows nothing")
	}
	t.Logf("%d requests, %d failed; with a second attempt %d, %d of them repeated", once.done.Load(), len(errs), again.done.Load(), again.retried.Load())
}

// TestHTTPHungDaemon: a daemon that hangs gets no new connections any more, and
// a request that it has got goes on when it does.
func TestHTTPHungDaemon(t *testing.T) {
	t.Parallel()
	s, webs := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http", "a"))
	address := s.at80("orders")
	webs["a"].answer(forwarded)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := s.web.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	ask := func() { fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n") }
	answers := bufio.NewReader(conn)
	hear := func() {
		t.Helper()
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(r.Body); string(body) != "true" {
			t.Errorf("on the held connection: %q, %v", body, err)
		}
	}
	ask()
	hear()

	s.daemon.signal(syscall.SIGSTOP)
	hung := time.Now()
	defer s.daemon.signal(syscall.SIGCONT)
	ask()
	s.eventually(10*time.Second, func() error {
		got, err := isForwarded(s.web, address, 500*time.Millisecond)
		if err == nil && got {
			return fmt.Errorf("a daemon that is stopped answers")
		}
		return err
	})
	t.Logf("new connections went direct after %s", time.Since(hung).Round(10*time.Millisecond))
	for range 10 {
		if got, err := isForwarded(s.web, address, 5*time.Second); err != nil || got {
			t.Errorf("hung for longer: through the forwarder %v, %v", got, err)
		}
	}
	s.daemon.signal(syscall.SIGCONT)
	hear()
	s.eventually(10*time.Second, func() error {
		if got, err := isForwarded(s.web, address, 2*time.Second); err != nil || !got {
			return fmt.Errorf("goes on: through the forwarder %v, %v", got, err)
		}
		return nil
	})
}
