package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"connectd/pkg/testutil"
)

// TestClientsComeAndGo: 50 clients attached and detached by reload leave
// neither open files nor goroutines, and their namespaces really go.
func TestClientsComeAndGo(t *testing.T) {
	t.Parallel()
	count := 50
	if testing.Short() {
		count = 10
	}
	s := newShop(t, "a")
	s.begin(service("orders", "", "a"))
	address := s.at80("orders")
	attached := func(want int) {
		t.Helper()
		s.eventually(30*time.Second, func() error {
			st, n := s.status(), 0
			for _, task := range st.Tasks {
				if task.Attached {
					n++
				}
			}
			if n != want || len(st.Tasks) != want {
				return fmt.Errorf("%d of %d tasks attached, want %d", n, len(st.Tasks), want)
			}
			return nil
		})
	}
	only := s.clients
	round := func() {
		t.Helper()
		var hosts []*testutil.Host
		for i := range count {
			hosts = append(hosts, s.another(fmt.Sprintf("c%d", i), "prod"))
		}
		s.configure()
		attached(1 + count)
		for _, h := range hosts[:5] {
			if a, err := lookup(h, s.dns.Host, "orders"); err != nil || a.String()+":80" != address {
				t.Errorf("%s: orders is %s, %v", h.Name(), a, err)
			}
		}
		s.clients = only
		s.configure()
		attached(1)
		if _, err := lookup(hosts[0], s.dns.Host, "orders"); err == nil {
			t.Error("a client that was detached still gets the name")
		}
		for _, h := range hosts {
			h.Close()
		}
	}
	round() // pools and maps reach their size
	files, goroutines := s.metric("process_open_fds"), s.metric("go_goroutines")
	round()
	s.eventually(20*time.Second, func() error {
		f, g := s.metric("process_open_fds"), s.metric("go_goroutines")
		if f > files || g > goroutines+2 { // the scrape's own may overlap
			return fmt.Errorf("%v open files and %v goroutines, were %v and %v", f, g, files, goroutines)
		}
		return nil
	})
}

// TestNamespaceReallyGoes: a client's namespace that is deleted is let go of,
// though the config still names it; a socket left in it would keep its
// interfaces.
func TestNamespaceReallyGoes(t *testing.T) {
	t.Parallel()
	s := newShop(t, "a")
	guest := s.another("guest", "prod")
	s.begin(service("orders", "", "a"))
	s.vip(guest, s.dns.Host, "orders")
	there := mark(t, guest, s.host, "mark0")

	// The negative control: a socket of ours keeps it.
	other := s.w.Host("other")
	kept := mark(t, other, s.host, "mark1")
	conn, err := other.Dial(context.Background(), "udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	guest.Close()
	s.eventually(20*time.Second, func() error {
		if there() {
			return fmt.Errorf("the namespace still has its interface")
		}
		return nil
	})
	if !kept() {
		t.Error("a namespace with an open socket is gone: this test cannot see one that is held")
	}
	conn.Close()
	s.eventually(10*time.Second, func() error {
		st := s.status()
		if st.Verdict == "ok" {
			return fmt.Errorf("status does not say that a client is gone")
		}
		return nil
	})
	if got := spread(s.web, "tcp", s.at80("orders"), 3); got["a"] != 3 {
		t.Errorf("the other client: %v", got)
	}
}

// mark gives a host an interface whose other end is on watcher, and returns
// whether that is there: it goes with the host's namespace.
func mark(t *testing.T, h, watcher *testutil.Host, name string) func() bool {
	t.Helper()
	out, err := h.Command(t.Context(), "ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", watcher.NetnsName()).CombinedOutput()
	if err != nil {
		t.Fatalf("ip link add: %s\n%s", err, out)
	}
	return func() bool {
		found := false
		err := watcher.Do(func() error {
			handle, err := netlink.NewHandle()
			if err != nil {
				return err
			}
			defer handle.Close()
			_, err = handle.LinkByName(name)
			found = err == nil
			return nil
		})
		return err == nil && found
	}
}
