package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectd/pkg/testutil"
)

func TestMain(m *testing.M) {
	if os.Getenv(lookEnv) != "" {
		os.Exit(look())
	}
	os.Exit(testutil.Main(m))
}

// node is a daemon in this process over a world of hosts.
type node struct {
	tb     testing.TB
	w      *testutil.World
	dir    string
	config string
	stop   func()
	d      *daemon
}

func newNode(tb testing.TB) *node {
	tb.Helper()
	dir, err := os.MkdirTemp("", "cd") // t.TempDir is too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return &node{tb: tb, w: testutil.NewWorld(tb), dir: dir, config: filepath.Join(dir, "connectd.yaml")}
}

func (n *node) write(name, content string) string {
	n.tb.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path+".tmp", []byte(content), 0o644); err != nil {
		n.tb.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		n.tb.Fatal(err)
	}
	return path
}

// configure writes a config whose files lie in the node's folder.
func (n *node) configure(bpffs, clients string) {
	n.tb.Helper()
	n.write("connectd.yaml", fmt.Sprintf(`stateDir: %[1]s/state
bpffs: %[2]s
controlSocket: %[1]s/sock
metrics: {listen: "127.0.0.1:0"}
limits: {maxConnections: 8192, maxEndpoints: 4096, maxServices: 512, maxSlots: 32768}
clients:
%[3]scatalog:
  files: [catalog*.yaml]
`, n.dir, bpffs, clients))
}

// start runs the daemon until it is ready.
func (n *node) start() {
	n.tb.Helper()
	d, err := build(n.config)
	if err != nil {
		n.tb.Fatalf("start: %s", err)
	}
	n.d = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := d.run(ctx)
		d.close()
		done <- err
	}()
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.tb.Errorf("run: %s", err)
		}
		n.stop = func() {}
	}
	n.tb.Cleanup(func() { n.stop() })
	testutil.Eventually(n.tb, 10*time.Second, func() error {
		if !d.ready.Load() {
			return fmt.Errorf("not ready: %v %v %s", d.notReady(), d.seats.Errors(), d.loop.Status().Error)
		}
		return nil
	})
}
