package task

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/task/docker"
	"connectd/pkg/task/join"
	"connectd/pkg/testutil"
)

// instance is a Node over containers that are made by hand: their processes,
// namespaces and cgroups are real. Node.refresh is called by the test, with the
// time that it wants.
type instance struct {
	*Node
	t        *testing.T
	w        *testutil.World
	resolver string // resolv.conf of containers that have no other
	now      time.Time
	hosts    int

	mu       sync.Mutex
	list     []docker.Container
	known    bool
	reported []Problem
	address  Addresses
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	testutil.RequireRoot(t)
	root, err := testutil.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{
		t: t, w: testutil.NewWorld(t), resolver: resolvConf(t, "10.0.0.2"), known: true, now: time.Now(),
		address: Addresses{V4: netip.MustParseAddr("10.66.0.250")},
	}
	i.Node = NewNode(NodeParams{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), CgroupRoot: root, Cookie: cookie, ResolvConf: readLines,
		Containers: func() ([]docker.Container, bool) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return slices.Clone(i.list), i.known
		},
		Address: func() (Addresses, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.address, nil
		},
		Zone: "use1-az1", Same: func(a, b *lb.Service) bool { return reflect.DeepEqual(a, b) }, Changed: func() {},
		Report: func(p Problem) { i.reported = append(i.reported, p) },
	})
	i.SetPolicy(join.Policy{Namespaces: []string{"prod", "tools"}})
	t.Cleanup(i.Node.close)
	return i
}

// host has an IPv4 address only.
func (i *instance) host(name string) *testutil.Host {
	i.hosts++
	return i.w.Host(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 66, 0, byte(10 + i.hosts)}), 24))
}

// process runs in a host's namespace until the test ends; it returns its pid
// and what ends it.
func (i *instance) process(h *testutil.Host, g *testutil.Cgroup) (pid int, end func()) {
	i.t.Helper()
	cmd := h.Command(i.t.Context(), "sleep", "1000")
	if g != nil {
		cmd = cmd.In(g)
	}
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	i.t.Cleanup(end)
	return cmd.Process.Pid, end
}

const clusterARN = "arn:aws:ecs:us-east-1:123456789012:task/main/"

// container is one of a task, as Docker tells of it once it runs. Its id is made
// of the task's and its own name.
func (i *instance) container(task, family, name, mode string, pid int) docker.Container {
	return docker.Container{
		ID: containerID(task, name), Name: "ecs-" + family + "-" + name,
		Labels: map[string]string{
			labelTask: clusterARN + task, labelCluster: "main", labelFamily: family, labelRevision: "3", labelContainer: name,
		},
		NetworkMode: mode, ResolvConfPath: i.resolver, PID: pid, State: docker.Running, Started: i.now, PortsKnown: true,
	}
}

func containerID(task, name string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(task+" "+name)))
}

// awsvpc are a pause container and "main" in its namespace.
func (i *instance) awsvpc(task, family string, pid int, labels map[string]string) []docker.Container {
	pause := i.container(task, family, pausePrefix, "none", pid)
	return []docker.Container{pause, label(i.container(task, family, "main", "container:"+pause.ID, pid), labels)}
}

func label(c docker.Container, labels map[string]string) docker.Container {
	for k, v := range labels {
		c.Labels[k] = v
	}
	return c
}

// serves are labels of a task that serves TCP port 8080.
func serves(name string) map[string]string {
	return map[string]string{
		"connectd.serviceConnect": fmt.Sprintf(`{"enabled": true, "namespace": "prod", "services": [{"portName": "p", "discoveryName": %q, "clientAliases": [{"port": 80}]}]}`, name),
		"connectd.ports":          `[{"name": "p", "containerPort": 8080}]`,
	}
}

// callsOnly are labels of a task that serves nothing.
func callsOnly() map[string]string {
	return map[string]string{"connectd.serviceConnect": `{"enabled": true, "namespace": "prod"}`}
}

// set replaces what runs and looks at it.
func (i *instance) set(list ...docker.Container) (changed, settled bool) {
	i.t.Helper()
	slices.SortFunc(list, func(a, b docker.Container) int { return strings.Compare(a.ID, b.ID) })
	i.mu.Lock()
	i.list = list
	i.mu.Unlock()
	changed, next := i.refresh(i.now)
	return changed, !next.Before(i.now.Add(restInterval))
}

// look lets time pass and looks again.
func (i *instance) look(after time.Duration) (changed, settled bool) {
	i.now = i.now.Add(after)
	changed, next := i.refresh(i.now)
	return changed, !next.Before(i.now.Add(restInterval))
}

func (i *instance) names() string {
	var out []string
	for _, t := range i.Tasks() {
		out = append(out, t.Name)
	}
	return strings.Join(out, " ")
}

func (i *instance) find(name string) lb.Task {
	i.t.Helper()
	for _, t := range i.Tasks() {
		if t.Name == name {
			return t
		}
	}
	i.t.Fatalf("no task %s: %q, problems %v", name, i.names(), i.Problems())
	return lb.Task{}
}

// served says what is served: "prod/orders=10.66.0.2:8080 pending".
func (i *instance) served() string {
	var out []string
	for _, s := range i.Services() {
		for _, e := range s.Endpoints {
			text := fmt.Sprintf("%s=%s %s", s.Name, e.Address, [...]string{"nothing", "healthy", "pending", "unhealthy"}[declaredIndex(e.Declared)])
			if e.Draining {
				text += " draining"
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}

func declaredIndex(d lb.Declared) int {
	return slices.Index([]lb.Declared{lb.DeclaredNothing, lb.DeclaredHealthy, lb.DeclaredPending, lb.DeclaredUnhealthy}, d)
}

func (i *instance) reasons() string {
	var out []string
	for _, p := range i.Problems() {
		out = append(out, p.Task+" "+p.Reason)
	}
	return strings.Join(out, ", ")
}

func (i *instance) wantServed(want string) {
	i.t.Helper()
	if got := i.served(); got != want {
		i.t.Errorf("served: %q, want %q; problems %v", got, want, i.Problems())
	}
}

func (i *instance) wantReasons(want string) {
	i.t.Helper()
	if got := i.reasons(); got != want {
		i.t.Errorf("problems are %q, want %q", got, want)
	}
}

func (i *instance) wantTasks(want string) {
	i.t.Helper()
	if got := i.names(); got != want {
		i.t.Errorf("tasks are %q, want %q; problems %v", got, want, i.Problems())
	}
}

// descriptors counts the files that this process has open in /proc/*/ns/net.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "net:[") {
			n++
		}
	}
	return n
}
