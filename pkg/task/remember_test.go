package task

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectd/pkg/task/docker"
	"connectd/pkg/testutil"
)

// TestRecall: until Docker answers, tasks are what an earlier Node knew and what
// still lives; a process that has the number of one that ended is not taken
// for it.
func TestRecall(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "containers.json")
	first := newInstance(t)
	first.Memory = memory
	h, other := first.host("a"), first.host("b")
	top := testutil.NewCgroup(t)
	id := containerID("acae1", pausePrefix)
	pid, _ := first.process(h, top.Child(id))
	lives := first.awsvpc("acae1", "lives", pid, callsOnly())
	lives[1].PID, lives[1].State = pid, docker.Running
	reused, _ := first.process(other, top.Child("another"))
	ended := label(first.container("acae2", "ended", "web", "bridge", reused), callsOnly())
	first.set(append(lives, ended)...)
	first.wantTasks("ended/acae2/web lives/acae1")

	second := newInstance(t)
	second.Memory, second.known = memory, false
	second.refresh(second.now)
	if second.Known() {
		t.Error("it knows tasks without having been told")
	}
	second.recall()
	second.look(restInterval)
	// The one that shares the pause container's namespace has the pause's
	// process here, whose cgroup is not its own.
	if got := len(second.Tasks()); got != 0 {
		t.Errorf("%d tasks: one whose container is not its process's was taken", got)
	}
	app, _ := first.process(h, top.Child(lives[1].ID))
	lives[1].PID = app
	first.now = first.now.Add(restInterval)
	first.set(append(lives, ended)...)

	second.recall()
	second.look(restInterval)
	second.wantTasks("lives/acae1")
	if !second.Known() {
		t.Error("it is not known what runs")
	}
	// Docker's word replaces it.
	second.known = true
	second.look(restInterval)
	second.wantTasks("")
}

// TestRecallNothing: a file that is not there or not what it should be is none.
func TestRecallNothing(t *testing.T) {
	for name, content := range map[string]string{"absent": "", "empty": " ", "cut": `[{"ID": "a`, "other": `{"ID": 1}`} {
		i := newInstance(t)
		i.Memory, i.known = filepath.Join(t.TempDir(), "containers.json"), false
		if content != "" {
			write(t, i.Memory, content)
		}
		i.recall()
		if i.refresh(i.now); i.Known() {
			t.Errorf("%s: it is known what runs", name)
		}
	}
}

// TestRememberRarely: a storm of events writes the file once, and the end of Run
// writes what came after.
func TestRememberRarely(t *testing.T) {
	i := newInstance(t)
	i.Memory = filepath.Join(t.TempDir(), "containers.json")
	pid, _ := i.process(i.host("a"), nil)
	size := func() int64 {
		st, err := os.Stat(i.Memory)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	var list []docker.Container
	var sizes []int64
	for k := range 10 {
		list = append(list, i.awsvpc(fmt.Sprint("baba", k), "many", pid, callsOnly())...)
		i.set(list...)
		sizes = append(sizes, size())
	}
	if sizes[0] != sizes[9] {
		t.Errorf("sizes are %v: it was written again within a second", sizes)
	}
	i.look(restInterval)
	whole := size()
	if whole < 5*sizes[0] {
		t.Errorf("after a second %d bytes, with one task %d", whole, sizes[0])
	}
	i.set(list[:2]...)
	i.rememberLast()
	if got := size(); got != sizes[0] {
		t.Errorf("at the end %d bytes, want %d", got, sizes[0])
	}
}

// TestRecallOnce: what Docker has told of before it answered whole does not
// stand beside what is recalled.
func TestRecallOnce(t *testing.T) {
	told := []docker.Container{{ID: ":", PID: os.Getpid()}} // a colon is in every line of a cgroup file
	n := NewNode(NodeParams{Containers: func() ([]docker.Container, bool) { return told, false }})
	n.recalled = told
	if got, known := n.containers(time.Now()); len(got) != 1 || !known {
		t.Errorf("%d containers (%v), want the one once", len(got), known)
	}
}
