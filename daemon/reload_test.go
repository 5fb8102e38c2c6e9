package daemon

import (
	"strings"
	"testing"

	"connectd/pkg/control"
	"connectd/pkg/testutil"
)

// A reload by command has ended when what was written is in force, and says
// what is not.
func TestReloadWaits(t *testing.T) {
	n := newNode(t)
	n.configure(testutil.BPFFS(t), "  []\n")
	n.write("catalog.yaml", emptyCatalog)
	n.start()
	c := control.NewClient(n.dir + "/sock")
	n.write("catalog.yaml", "namespace: prod\nservices:\n  - discoveryName: orders\n")
	if _, err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Services(t.Context(), control.ServiceFilter{}); err != nil || len(list) != 1 {
		t.Errorf("right after the reload: %v, %v", list, err)
	}
	n.write("catalog.yaml", "namespace: prod\nservices:\n  - discoveryName: Orders\n")
	if _, err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "catalog.yaml:3: services[0].discoveryName") {
		t.Errorf("reload of a bad catalog: %v", err)
	}
	if s, err := c.Status(t.Context()); err != nil || s.Services.Total != 1 || s.Verdict != control.VerdictDegraded {
		t.Errorf("after a bad reload: %+v, %v", s, err)
	}
}
