package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"connectd/pkg/task/docker"
	"connectd/pkg/wholefile"
)

// containers are what Docker says runs. Until it has answered they are what an
// earlier daemon knew and what is still alive: tasks go on while Docker is away,
// and a restart meanwhile must not take names and connections from them.
func (n *Node) containers(now time.Time) (list []docker.Container, known bool) {
	list, known = n.Containers()
	if known {
		// In a storm of events the file, which may have 1 MB, is not written for
		// each.
		if now.Sub(n.wrote) >= restInterval {
			n.remember(list)
			n.wrote = now
		}
		return list, true
	}
	if n.recalled == nil {
		return nil, false
	}
	list = nil // what Docker has told so far is no list yet
	for _, c := range n.recalled {
		if lives(c) {
			list = append(list, c)
		}
	}
	return list, true
}

// rememberLast writes down what Run knew at its end.
func (n *Node) rememberLast() {
	if list, known := n.Containers(); known {
		n.remember(list)
	}
}

// remember writes the containers down when they differ from what is there.
func (n *Node) remember(list []docker.Container) {
	if n.Memory == "" {
		return
	}
	text, err := json.Marshal(list)
	if err == nil && bytes.Equal(text, n.written) {
		return
	}
	if err == nil {
		err = wholefile.Write(n.Memory, text)
	}
	if err != nil {
		n.Log.Warn("remember containers for the next start", "error", err)
		return
	}
	n.written = text
}

// recall reads what an earlier daemon wrote. A file that cannot be read costs
// no more than a file that is not there: Docker is asked anyway.
func (n *Node) recall() {
	text, err := os.ReadFile(n.Memory)
	if n.Memory == "" || errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list []docker.Container
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		n.Log.Warn("recall containers of the last run", "file", n.Memory, "error", err)
		return
	}
	n.recalled = list
}

// lives says whether a container's first process still is: a process of that
// number is the container's only if its cgroup carries the container's id.
func lives(c docker.Container) bool {
	if c.PID == 0 || c.ID == "" {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID))
	return err == nil && strings.Contains(string(text), c.ID)
}
