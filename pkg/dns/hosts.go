package dns

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"connectd/pkg/lb"
)

// maxHosts bounds the names in one hosts file: every lookup of every process
// in the task reads it from the start.
const maxHosts = 1000

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

	written map[string]string // error of the last write by file, "" is none; the goroutine's own
}

// asked is what is known of one task beyond its plan.
type asked struct {
	hosts *hosts
	ipv6  atomic.Bool
	seats int // attached now; hosts.mu guards it

	mu    sync.Mutex                          // serialises add
	names atomic.Pointer[map[string]struct{}] // immutable; nil until seeded from the file
}

func startHosts(current func() *state, log *slog.Logger) *hosts {
	h := &hosts{
		current: current,
		log:     log,
		dirty:   make(chan struct{}, 1),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		tasks:   make(map[lb.TaskID]*asked),
		written: make(map[string]string),
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
	for {
		select {
		case <-h.dirty:
			h.write()
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
// task has gone.
func (h *hosts) write() {
	st := h.current()
	wanted := make(map[string]bool)
	for _, t := range st.tasks {
		if h.withdrawn.Load() {
			break
		}
		for _, file := range t.HostsFiles {
			if !wanted[file] {
				wanted[file] = true
				h.writeFile(file, h.entries(st, st.scopes[t.ID], file))
			}
		}
	}
	for file := range h.written {
		if !wanted[file] {
			h.writeFile(file, nil)
			delete(h.written, file)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.tasks, func(id lb.TaskID, a *asked) bool { return a.seats == 0 && st.scopes[id] == nil })
}

// writeFile logs an error when it is another than the last one.
func (h *hosts) writeFile(file string, entries []HostEntry) {
	var text string
	if err := WriteHosts(file, entries); err != nil {
		text = err.Error()
	}
	if text != "" && h.written[file] != text {
		h.log.Error("write hosts file", "file", file, "error", text)
	}
	h.written[file] = text
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
