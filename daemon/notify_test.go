package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/testutil"
)

// manager is the other end of a notifier, without a socket.
type manager struct {
	mu    sync.Mutex
	heard []string
}

func (m *manager) hear(state string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = append(m.heard, strings.ReplaceAll(state, "\n", " "))
	return nil
}

// take returns what was heard since the last call.
func (m *manager) take() []string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.heard = nil }()
	return m.heard
}

func (m *manager) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := m.take(); !slices.Equal(got, want) {
		t.Errorf("the service manager heard %q, want %q", got, want)
	}
}

func TestNotifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{}
		n := &notifier{send: m.hear, watchdog: 30 * time.Second, patience: readyPatience}
		n.start()
		m.expect(t, "STATUS=starting")
		n.reloading()() // too early: its end would be the word for readiness
		m.expect(t)

		hangs, status := atomic.Bool{}, atomic.Value{}
		status.Store("not ready: waiting for plan")
		n.watch(slog.New(slog.DiscardHandler), func() error {
			if hangs.Load() {
				return errors.New("main loop stands still")
			}
			return nil
		}, func() string { return status.Load().(string) })
		time.Sleep(readyPatience - time.Millisecond)
		m.expect(t)
		status.Store("ready: 3 services, 2 tasks")
		n.ready()
		m.expect(t, "READY=1 STATUS=ready: 3 services, 2 tasks")
		time.Sleep(time.Millisecond) // patience ends, and a sign of life is due
		m.expect(t, "WATCHDOG=1")
		time.Sleep(15 * time.Second)
		m.expect(t, "WATCHDOG=1")

		hangs.Store(true)
		time.Sleep(time.Minute)
		m.expect(t)
		hangs.Store(false)
		status.Store("ready: 4 services, 2 tasks")
		time.Sleep(15 * time.Second)
		m.expect(t, "WATCHDOG=1 STATUS=ready: 4 services, 2 tasks")

		reloaded := n.reloading()
		got := m.take()
		if len(got) != 1 || !strings.HasPrefix(got[0], "RELOADING=1 MONOTONIC_USEC=") {
			t.Errorf("a reload begins with %q", got)
		}
		status.Store("ready: 5 services, 2 tasks")
		reloaded()
		m.expect(t, "READY=1 STATUS=ready: 5 services, 2 tasks")

		n.stopping()
		m.expect(t, "STOPPING=1 STATUS=stopping: requests in flight have 10s")
		time.Sleep(15 * time.Second)
		m.expect(t, "WATCHDOG=1") // a long stop is no hang
		n.close()
		time.Sleep(time.Hour)
		m.expect(t)
	})
}

// A start that takes too long lets the units ordered after it begin, and is
// not announced a second time when it is over.
func TestNotifierPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manager{}
		n := &notifier{send: m.hear, patience: readyPatience} // nobody watches
		n.start()
		time.Sleep(readyPatience)
		m.expect(t, "STATUS=starting", "READY=1")
		n.watch(slog.New(slog.DiscardHandler), func() error { return nil }, func() string { return "ready: 1 services, 0 tasks" })
		n.ready()
		m.expect(t, "STATUS=ready: 1 services, 0 tasks")
		n.close()
	})
}

// TestNotifySocket: what systemd's socket gets from a whole daemon.
func TestNotifySocket(t *testing.T) {
	testutil.RequireRoot(t)
	n := newNode(t)
	path := filepath.Join(n.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "200000")
	n.configure(testutil.BPFFS(t), "  []\n")
	n.write("catalog.yaml", emptyCatalog)

	// next reads messages until one has the word, and returns all of them.
	next := func(word string) string {
		t.Helper()
		var all strings.Builder
		for {
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			var buf [4096]byte
			size, err := conn.Read(buf[:])
			if err != nil {
				t.Fatalf("no %s: %s; heard %q", word, err, all.String())
			}
			all.Write(append(buf[:size], '\n'))
			if strings.Contains(string(buf[:size]), word) {
				return all.String()
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, n.config) }()
	if first := next("READY=1"); !strings.Contains(first, "STATUS=starting\n") || !strings.Contains(first, "STATUS=ready: 0 services, 0 tasks\n") {
		t.Errorf("the start says %q", first)
	}
	next("WATCHDOG=1")
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	next("RELOADING=1")
	next("READY=1")
	cancel()
	next("STOPPING=1")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
