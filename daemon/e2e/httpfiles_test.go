package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// Out of descriptors the forwarder accepts no more and blames no endpoint; when
// there are some again it goes on.
func TestHTTPOutOfDescriptors(t *testing.T) {
	s, _ := newHTTPShop(t, "a")
	s.begin(service("orders", "appProtocol: http", "a"))
	address := s.at80("orders")
	c := httpClient(t, s.web)
	if status, _, err := get(c, "http://"+address+"/"); status != 200 {
		t.Fatalf("got %d (%v)", status, err)
	}
	pid := s.daemon.cmd.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	// The listeners' own numbers are above it: the limit is on new ones.
	few := unix.Rlimit{Cur: uint64(len(open) + 12), Max: 20000}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, &before); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 40 {
		conn, err := s.web.Dial(context.Background(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	s.eventually(10*time.Second, func() error {
		if now, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || len(now) < len(open)+5 {
			return fmt.Errorf("%d descriptors (%v), before it %d", len(now), err, len(open))
		}
		return nil
	})
	for _, c := range conns {
		c.Close()
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	s.eventually(10*time.Second, func() error {
		if n := s.metric("connectd_forwarder_refusals_total", "reason", "no_descriptor"); n == 0 {
			return fmt.Errorf("nothing was refused for want of descriptors")
		}
		status, body, err := get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.Transport.(*http.Transport).DialContext}, Timeout: 2 * time.Second}, "http://"+address+"/")
		if status != 200 {
			return fmt.Errorf("got %d %q (%v)", status, body, err)
		}
		return nil
	})
	for at, e := range s.endpoints("prod/orders") {
		if e.State != "active" || len(e.AvoidedBy) > 0 {
			t.Errorf("endpoint %s is %s, avoided by %v: it did nothing wrong", at, e.State, e.AvoidedBy)
		}
	}
}

// Requests on a connection that stands already need a descriptor for the
// endpoint: they get 503, and the endpoint is not ejected for it.
func TestHTTPNoDescriptorForEndpoint(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http", "http2"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			for _, name := range []string{"a", "b"} { // one alone is never avoided
				h := s.w.Host(name)
				s.servers[name] = h
				if protocol == "http" {
					startWeb(h, name)
				} else {
					serveH2C(h, func(http.ResponseWriter, *http.Request) {})
				}
			}
			s.begin(service("orders", "appProtocol: "+protocol+"\nretry: {attempts: 0}\noutlier: {consecutiveFailures: 2}", "a", "b"))
			conn, err := s.web.Dial(context.Background(), "tcp", s.at80("orders"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var via http.RoundTripper = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
			if protocol == "http2" {
				if via, err = (&http2.Transport{}).NewClientConn(conn); err != nil {
					t.Fatal(err)
				}
			}
			s.eventually(5*time.Second, func() error {
				if n := s.metric("connectd_forwarder_connections"); n != 1 {
					return fmt.Errorf("%v connections held", n)
				}
				return nil
			})
			pid := s.daemon.cmd.Process.Pid
			var before unix.Rlimit
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 20000}, &before); err != nil {
				t.Fatal(err)
			}
			for range 6 {
				req, _ := http.NewRequest("GET", "http://orders/", nil)
				r, err := via.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if r.StatusCode != 503 {
					t.Errorf("got %d", r.StatusCode)
				}
			}
			if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
				t.Fatal(err)
			}
			if n := s.metric("connectd_forwarder_refusals_total", "reason", "no_descriptor"); n == 0 {
				t.Error("the want of descriptors is not counted")
			}
			for at, e := range s.endpoints("prod/orders") {
				if e.State != "active" || len(e.AvoidedBy) > 0 {
					t.Errorf("endpoint %s is %s, avoided by %v: it did nothing wrong", at, e.State, e.AvoidedBy)
				}
			}
		})
	}
}
