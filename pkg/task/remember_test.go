package task

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectd/pkg/task/docker"
)

// TestRecall: until Docker has answered whole, containers are those of the last
// run that still live, each once, whatever Docker has told of so far.
func TestRecall(t *testing.T) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	alive := filepath.Base(strings.TrimSpace(string(text))) // what this process's cgroup carries
	if alive == "/" || alive == "." {
		alive = ":" // in every line
	}
	memory := filepath.Join(t.TempDir(), "containers.json")
	var told []docker.Container
	known := true
	n := NewNode(NodeParams{Log: slog.New(slog.DiscardHandler), Memory: memory,
		Containers: func() ([]docker.Container, bool) { return told, known }})
	told = []docker.Container{{ID: alive, PID: os.Getpid(), Name: "lives"}, {ID: "another", PID: os.Getpid(), Name: "its number is taken"}, {ID: "c", Name: "exited"}}
	n.containers()

	next := NewNode(n.NodeParams)
	next.recall()
	told, known = told[:1], false
	got, ok := next.containers()
	if names := fmt.Sprint(len(got), ok); names != "1 true" || got[0].Name != "lives" {
		t.Errorf("recalled %s: %+v", names, got)
	}
	told, known = nil, true
	if got, ok := next.containers(); len(got) != 0 || !ok {
		t.Errorf("Docker's answer does not go before memory: %+v %v", got, ok)
	}

	if err := os.WriteFile(memory, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	torn := NewNode(n.NodeParams)
	torn.recall()
	known = false
	if got, ok := torn.containers(); ok || got != nil {
		t.Errorf("a torn file says %+v", got)
	}
}
