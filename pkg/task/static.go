// Package task knows who runs here: today the static clients of the config,
// each a network namespace or a cgroup.
package task

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"connectd/pkg/lb"
	"connectd/pkg/netns"
)

// Client is a static client. Exactly one of NetnsPath and Cgroup is set.
type Client struct {
	Name       string
	NetnsPath  string // /run/netns/web, /proc/PID/ns/net
	Cgroup     string // a cgroup2 directory
	Namespaces []string
	HostsFile  string
	ResolvConf string // "" is the one its processes read by default
}

// Params are what a Static needs.
type Params struct {
	CgroupRoot string                              // of the cgroup2 tree
	Cookie     func(*netns.Handle) (uint64, error) // of a network namespace
	ResolvConf func(path string) ([]netip.Addr, []string, error)
}

// Static turns static clients into tasks. It holds their namespaces open and
// lets go of one whose path leads elsewhere or nowhere: an open namespace
// outlives its task, with its interfaces.
type Static struct {
	Params

	// One looks at a time, and without mu: a task's own files may hang, and
	// who asks for Tasks must not hang with them. Taken before mu.
	looking sync.Mutex

	mu      sync.Mutex
	clients []Client
	held    map[string]*held // by client name
	problem map[string]error
}

type held struct {
	client Client
	task   lb.Task
	ns     *netns.Handle // nil: the node's own
}

// NewStatic returns a Static without clients.
func NewStatic(p Params) *Static {
	return &Static{Params: p, held: map[string]*held{}, problem: map[string]error{}}
}

// Set replaces the clients. Its error joins what is wrong with any of them;
// the others are in force all the same, and Refresh tries again.
func (s *Static) Set(clients []Client) error {
	s.mu.Lock()
	s.clients = slices.Clone(clients)
	s.mu.Unlock()
	s.Refresh()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, s.problem[c.Name])
	}
	return errors.Join(errs...)
}

// Refresh looks at every client again, for namespaces come and go and
// resolv.conf files are edited, and reports whether Tasks changed. A client
// whose namespace is gone is no task until it is back.
func (s *Static) Refresh() (changed bool) {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.mu.Lock()
	clients, before := s.clients, maps.Clone(s.held)
	s.mu.Unlock()

	found := make(map[string]*held, len(clients))
	problem := make(map[string]error)
	for _, c := range clients {
		h, err := s.look(c, before[c.Name])
		if err != nil {
			problem[c.Name] = fmt.Errorf("client %s: %w", c.Name, err)
		}
		if h != nil {
			found[c.Name] = h
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.tasks()
	for name, old := range s.held {
		if h := found[name]; h == nil || h.ns != old.ns {
			old.ns.Close()
		}
	}
	s.held, s.problem = found, problem
	return !slices.EqualFunc(was, s.tasks(), sameTask)
}

// look returns the client as it is now, with the namespace of old if that is
// still the one. With both a client and an error it is a task with that
// problem.
func (s *Static) look(c Client, old *held) (*held, error) {
	h := &held{client: c, task: lb.Task{
		Name: c.Name, Namespaces: c.Namespaces, NetnsPath: c.NetnsPath,
		HostsFiles: c.hostsFiles(), ResolvConf: c.resolvConf(),
	}}
	problem := s.readResolvers(h, old)
	if problem != nil && h.task.Resolvers == nil {
		return nil, problem
	}
	var err error
	if c.Cgroup != "" {
		if h.task.CgroupID, h.task.CgroupLevel, err = locateCgroup(s.CgroupRoot, c.Cgroup); err != nil {
			return nil, err
		}
		return h, problem
	}
	if old != nil && old.ns != nil && old.client.NetnsPath == c.NetnsPath && isAt(old.ns, c.NetnsPath) {
		h.ns, h.task.NetnsCookie = old.ns, old.task.NetnsCookie
		return h, problem
	}
	if h.ns, err = netns.Open(c.NetnsPath); err != nil {
		return nil, fmt.Errorf("open its network namespace: %w", err)
	}
	if h.ns.Self() {
		h.ns.Close()
		return nil, fmt.Errorf("%s is the daemon's own network namespace, name the client by its cgroup", c.NetnsPath)
	}
	if h.task.NetnsCookie, err = s.Cookie(h.ns); err != nil {
		h.ns.Close()
		return nil, err
	}
	return h, problem
}

// readResolvers keeps those that are known when the file cannot be read: that
// is no reason to take names and connections from who uses them.
func (s *Static) readResolvers(h, old *held) (err error) {
	h.task.Resolvers, h.task.Search, err = s.ResolvConf(h.task.ResolvConf)
	if err == nil {
		return nil
	}
	if old != nil && old.task.ResolvConf == h.task.ResolvConf {
		h.task.Resolvers, h.task.Search = old.task.Resolvers, old.task.Search
	}
	return fmt.Errorf("read its resolvers: %w", err)
}

func isAt(ns *netns.Handle, path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Ino == ns.Inode()
}

func (c Client) hostsFiles() []string {
	if c.HostsFile == "" {
		return nil
	}
	return []string{c.HostsFile}
}

// resolvConf is the file that the client's processes read: what ip-netns(8)
// mounts for a named namespace, a process's own, or the node's.
func (c Client) resolvConf() string {
	if c.ResolvConf != "" {
		return c.ResolvConf
	}
	if pid, ok := strings.CutSuffix(c.NetnsPath, "/ns/net"); ok && strings.HasPrefix(pid, "/proc/") {
		return pid + "/root/etc/resolv.conf"
	}
	if c.NetnsPath != "" {
		named := filepath.Join("/etc/netns", filepath.Base(c.NetnsPath), "resolv.conf")
		if _, err := os.Stat(named); !errors.Is(err, fs.ErrNotExist) {
			return named
		}
	}
	return "/etc/resolv.conf"
}

// Tasks returns the clients that are there, sorted by name.
func (s *Static) Tasks() []lb.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tasks()
}

func (s *Static) tasks() []lb.Task {
	out := make([]lb.Task, 0, len(s.held))
	for _, h := range s.held {
		out = append(out, h.task)
	}
	slices.SortFunc(out, func(a, b lb.Task) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func sameTask(a, b lb.Task) bool {
	return a.Name == b.Name && a.NetnsCookie == b.NetnsCookie && a.CgroupID == b.CgroupID && a.CgroupLevel == b.CgroupLevel &&
		a.NetnsPath == b.NetnsPath && slices.Equal(a.HostsFiles, b.HostsFiles) && a.ResolvConf == b.ResolvConf && slices.Equal(a.Namespaces, b.Namespaces) &&
		slices.Equal(a.Resolvers, b.Resolvers) && slices.Equal(a.Search, b.Search) && a.ECS == b.ECS
}

// Problems returns why clients are no tasks, by name.
func (s *Static) Problems() map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.problem)
}

// Namespace returns the network namespace of a task; nil is the node's own.
func (s *Static) Namespace(name string) (ns *netns.Handle, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.held[name]
	if !ok {
		return nil, false
	}
	return h.ns, true
}

// ByCookie returns the namespace with a cookie, if it is a task's.
func (s *Static) ByCookie(cookie uint64) (ns *netns.Handle, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		if h.ns != nil && h.task.NetnsCookie == cookie {
			return h.ns, true
		}
	}
	return nil, false
}

// Close lets go of every namespace.
func (s *Static) Close() {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		h.ns.Close()
	}
	clear(s.held)
}
