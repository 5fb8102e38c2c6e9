package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectd/pkg/testutil"
)

const emptyCatalog = "namespace: prod\nservices: []\n"

// A second daemon with state of its own must not take the pins of the first.
func TestPinsAreLocked(t *testing.T) {
	bpffs := testutil.BPFFS(t)
	first, second := newNode(t), newNode(t)
	for _, n := range []*node{first, second} {
		n.configure(bpffs, "  []\n")
		n.write("catalog.yaml", emptyCatalog)
	}
	first.start()
	want := fmt.Sprintf("lock %s: held by pid %d", bpffs, os.Getpid())
	if d, err := build(second.config); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("second daemon: %v, want %q", err, want)
		if err == nil {
			d.close()
		}
	}
	first.stop()
	second.start()
}

// What makes a start fail is found before the kernel is touched.
func TestFailedStartTouchesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := newNode(t)
	bpffs := testutil.BPFFS(t)
	n.configure(bpffs, "  []\n")
	n.write("catalog.yaml", emptyCatalog)
	config, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	n.write("connectd.yaml", strings.Replace(string(config), "127.0.0.1:0", taken.Addr().String(), 1))
	if d, err := build(n.config); err == nil || !strings.Contains(err.Error(), "listen for metrics") {
		t.Errorf("start with a taken port: %v", err)
		if err == nil {
			d.close()
		}
	}
	if _, err := os.Stat(filepath.Join(bpffs, "maps")); !os.IsNotExist(err) {
		t.Errorf("maps were made: %v", err)
	}
	n.write("connectd.yaml", string(config))
	n.start() // the locks are free again
}
