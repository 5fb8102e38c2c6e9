package task

import (
	"os"
	"strings"
	"testing"

	"connectd/pkg/task/docker"
)

// TestRecalledAreNotListedTwice: while Docker has told of some containers only,
// those that are remembered count, each once.
func TestRecalledAreNotListedTwice(t *testing.T) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	self := docker.Container{ID: strings.Fields(string(text))[0], PID: os.Getpid(), State: docker.Running}
	known := false
	n := NewNode(NodeParams{Containers: func() ([]docker.Container, bool) {
		return []docker.Container{{ID: self.ID, State: docker.Created}}, known
	}})
	n.recalled = []docker.Container{self, {ID: "gone", PID: os.Getpid()}}
	if list, ok := n.containers(); !ok || len(list) != 1 || list[0].PID != self.PID {
		t.Errorf("before Docker has told of all: %+v, %v", list, ok)
	}
	known = true
	if list, ok := n.containers(); !ok || len(list) != 1 || list[0].PID != 0 {
		t.Errorf("once it has: %+v, %v", list, ok)
	}
}
