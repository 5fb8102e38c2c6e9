package dns

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
)

// maxHosts bounds the names in one hosts file: every lookup of every process
// in the task reads it from the start.
const maxHosts = 1000

// hostsCheck is how often hosts files are looked at for what others did to them:
// Docker makes one anew when its container starts again.
const hostsCheck = 30 * time.Second

// hosts keeps the hosts files of all planned tasks that have one. While
// connectd is away a task resolves from there: every name of its scope as
// long as they are at most maxHosts, else the names it has asked for.
type hosts struct {
	current   func() *state
	log       *slog.Logger
	dirty     chan struct{} // an element when something may have changed
	stop      chan struct{}
	withdrawn atomic.Bool // no file is to have names
	stopped   chan struct{}

	mu    sync.Mutex
	tasks map[lb.TaskID]*asked

	prune atomic.Bool // files of tasks that are not planned are no task's

	// The goroutine's own.
	list    *hostsList
	written map[string]written // by file
	saveErr string             // of list, when it was last saved
}

// written is how the last write of a file ended.
type written struct {
	err   string // "" is none
	stamp stamp  // of the file after it
}

// stamp tells whether a file was written since.
type stamp struct {
	inode    uint64
	size     int64
	modified unix.Timespec
}

// stampOf returns the zero stamp of a file that is not there.
func stampOf(file string) stamp {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return stamp{}
	}
	return stamp{st.Ino, st.Size, st.Mtim}
}

// asked is what is known of one task beyond its plan.
type asked struct {
	hosts *hosts
	ipv6  atomic.Bool
	seats int // attached now; hosts.mu guards it

	mu    sync.Mutex                          // serialises add
	names atomic.Pointer[map[string]struct{}] // immutable; nil until seeded from the file
}

func startHosts(current func() *state, listFile string, log *slog.Logger) *hosts {
	h := &hosts{
		current: current,
		log:     log,
		dirty:   make(chan struct{}, 1),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		tasks:   make(map[lb.TaskID]*asked),
		list:    loadHostsList(listFile, log),
		written: make(map[string]written),
	}
	go h.run()
	return h
}

func (h *hosts) wake() {
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// close writes what is due and ends the upkeep.
func (h *hosts) close() {
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	<-h.stopped
}

func (h *hosts) run() {
	defer close(h.stopped)
	check := time.NewTicker(hostsCheck)
	defer check.Stop()
	for {
		select {
		case <-h.dirty:
			h.write()
		case <-check.C:
			if h.touched() {
				h.write()
			}
		case <-h.stop:
			select {
			case <-h.dirty:
				h.write()
			default:
			}
			return
		}
	}
}

// attach notes whether a task can use IPv6 addresses.
func (h *hosts) attach(id lb.TaskID, ipv6 bool) *asked {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.asked(id)
	a.seats++
	if a.ipv6.Swap(ipv6) != ipv6 {
		h.wake()
	}
	return a
}

func (h *hosts) detach(a *asked) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.seats--
}

// asked returns what is known of a task; h.mu is held.
func (h *hosts) asked(id lb.TaskID) *asked {
	a := h.tasks[id]
	if a == nil {
		a = &asked{hosts: h}
		h.tasks[id] = a
	}
	return a
}

// add notes a name that the task asked for. Only the first time costs more
// than a lookup: the set is small and copied, so that reading takes no lock.
func (a *asked) add(name string) {
	if known := a.names.Load(); known != nil {
		if _, ok := (*known)[name]; ok || len(*known) >= maxHosts {
			return
		}
	}
	a.insert(name)
	a.hosts.wake()
}

func (a *asked) insert(names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := make(map[string]struct{}, len(names))
	if known := a.names.Load(); known != nil {
		maps.Copy(next, *known)
	}
	for _, n := range names {
		if len(next) < maxHosts {
			next[n] = struct{}{}
		}
	}
	a.names.Store(&next)
}

// write brings every file up to date, and takes the block out of those whose
// task has gone. A file is listed before there is a block in it, and until
// there is none.
func (h *hosts) write() {
	st := h.current()
	wanted := make(map[string]*scope)
	for _, t := range st.tasks {
		if h.withdrawn.Load() {
			break
		}
		for _, file := range t.HostsFiles {
			if wanted[file] == nil {
				wanted[file] = st.scopes[t.ID]
			}
		}
	}
	for file := range wanted {
		h.list.add(file)
	}
	h.saveList()
	for file, sc := range wanted {
		h.writeFile(file, h.entries(st, sc, file))
	}
	for _, file := range h.list.files() {
		if _, ours := h.written[file]; wanted[file] != nil || !ours && !h.prune.Load() {
			continue
		}
		if h.writeFile(file, nil) {
			delete(h.written, file)
			h.list.remove(file)
		}
	}
	h.saveList()
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.tasks, func(id lb.TaskID, a *asked) bool { return a.seats == 0 && st.scopes[id] == nil })
}

// writeFile logs an error when it is another than the last one.
func (h *hosts) writeFile(file string, entries []HostEntry) (ok bool) {
	w := written{}
	if err := WriteHosts(file, entries); err != nil {
		w.err = err.Error()
	} else {
		w.stamp = stampOf(file)
	}
	if w.err != "" && h.written[file].err != w.err {
		h.log.Error("write hosts file", "file", file, "error", w.err)
	}
	h.written[file] = w
	return w.err == ""
}

func (h *hosts) saveList() {
	text := ""
	if err := h.list.save(); err != nil {
		text = err.Error()
	}
	if text != "" && text != h.saveErr {
		h.log.Error("note which hosts files are written", "error", text)
	}
	h.saveErr = text
}

// touched says whether somebody else has written a file, or a write has failed.
func (h *hosts) touched() bool {
	for file, w := range h.written {
		if w.err != "" || w.stamp != stampOf(file) {
			return true
		}
	}
	return false
}

func (h *hosts) entries(st *state, sc *scope, file string) []HostEntry {
	h.mu.Lock()
	known := h.asked(sc.task.ID)
	h.mu.Unlock()
	if _, begun := h.written[file]; !begun {
		// What the task asked for before a restart of ours stands in the file.
		if names, err := blockNames(file); err == nil {
			known.insert(names...)
		}
	}
	var entries []HostEntry
	for _, name := range hostNames(st, sc, known) {
		m, ok := st.table.lookup([]byte(name), sc.namespaces)
		if ok && m.v4.IsValid() {
			entries = append(entries, HostEntry{m.v4, name})
		}
		if ok && m.v6.IsValid() && known.ipv6.Load() {
			entries = append(entries, HostEntry{m.v6, name})
		}
	}
	return entries
}

// hostNames returns the names for a task's file, sorted.
func hostNames(st *state, sc *scope, known *asked) []string {
	all := make(map[string]struct{})
	st.table.names(func(namespace, name string) {
		if len(all) <= maxHosts && slices.Contains(sc.namespaces, namespace) {
			all[name] = struct{}{}
		}
	})
	if len(all) > maxHosts {
		all = nil
		if set := known.names.Load(); set != nil {
			all = *set
		}
	}
	return slices.Sorted(maps.Keys(all))
}
