package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

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
