package daemon

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"connectd/pkg/control"
	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/plan"
	"connectd/pkg/proxy"
)

// connections lists what tasks are connected to.
func (d *daemon) connections(task func(string) bool, of lb.ServiceName) (control.Connections, error) {
	p := d.plan()
	services := make(map[lb.ServiceID]lb.ServiceName, len(p.Services))
	for _, s := range p.Services {
		services[s.ID] = s.Name
	}
	wanted := make(map[lb.TaskID]bool)
	list, total, err := d.datapath.Connections(func(c *datapath.Connection) bool {
		if of != (lb.ServiceName{}) && services[c.Service] != of {
			return false
		}
		yes, known := wanted[c.Task]
		if !known {
			yes = task(d.known.name(c.Task))
			wanted[c.Task] = yes
		}
		return yes
	}, control.MaxConnections, d.namespaces)
	if err != nil && list == nil {
		return control.Connections{}, err
	}
	if err != nil {
		d.log.Warn("read bytes of connections", "error", err)
	}
	clients := d.clientsByEnds(list)
	out := control.Connections{Connections: make([]control.Connection, len(list)), Total: total}
	for i := range list {
		c := &list[i]
		w := &out.Connections[i]
		*w = control.Connection{
			Task: d.known.name(c.Task), Name: d.vips.find(p, c.VIP, c.Protocol).name, Protocol: c.Protocol.String(),
			VIP: c.VIP, State: string(c.State), Started: c.Started,
		}
		if name, ok := services[c.Service]; ok {
			w.Service = name.String()
		}
		if c.Local.Port() != 0 {
			w.Local = c.Local
		}
		if c.Bytes != nil {
			w.Bytes = &control.Transferred{Sent: c.Bytes.Sent, Received: c.Bytes.Received}
		}
		if c.Forwarded {
			fillForwarded(w, clients[ends{c.Task, c.Local, c.VIP}])
		} else {
			w.Endpoint = c.Remote
		}
	}
	slices.SortFunc(out.Connections, func(a, b control.Connection) int {
		return cmp.Or(cmp.Compare(a.Task, b.Task), a.VIP.Compare(b.VIP), a.Local.Compare(b.Local))
	})
	return out, nil
}

// fillForwarded adds what the forwarder knows, which is nil of a connection
// that waits to be accepted or is ending.
func fillForwarded(w *control.Connection, c *proxy.Client) {
	w.Protocol = "http"
	if c == nil {
		return
	}
	w.Endpoint = c.Endpoint
	w.Forwarder = &control.Forwarded{Requests: c.Requests, InFlight: c.InFlight}
	switch {
	case c.HTTP2:
		w.Protocol = "http/2"
	case c.Requests > 0:
		w.Protocol = "http/1.1"
	}
}

// ends tell a connection to the forwarder from all others of the node: local
// addresses are loopback's, and the task says in which namespace.
type ends struct {
	task       lb.TaskID
	local, vip netip.AddrPort
}

func (d *daemon) clientsByEnds(list []datapath.Connection) map[ends]*proxy.Client {
	if !slices.ContainsFunc(list, func(c datapath.Connection) bool { return c.Forwarded }) {
		return nil
	}
	out := make(map[ends]*proxy.Client)
	// More than are listed, for these are of all tasks.
	for _, c := range d.proxy.Clients(4 * control.MaxConnections) {
		out[ends{c.Task, c.From, c.VIP}] = &c
	}
	return out
}

// taskDetails lists the tasks of the node, and clients of the config that are
// none for now.
func (d *daemon) taskDetails() []control.TaskDetail {
	p := d.plan()
	planned := make(map[string]*plan.Task, len(p.Tasks))
	for _, t := range p.Tasks {
		planned[t.Name] = t
	}
	problems, unattached := maps.Clone(d.tasks.static.Problems()), d.seats.Errors()
	asked := d.taskProblemsByName()
	var out []control.TaskDetail
	for _, t := range d.localTasks() {
		w := describe(&t)
		if is := planned[t.Name]; is != nil {
			w.Connections = d.datapath.TaskConnections(is.ID)
		} else {
			w.Problems = append(w.Problems, d.whyNotPlanned(p, t.Name))
		}
		_, w.Attached = d.seated.Load(t.Name)
		for _, err := range []error{problems[t.Name], unattached[t.Name]} {
			if err != nil {
				w.Problems = append(w.Problems, err.Error())
			}
		}
		delete(problems, t.Name)
		if t.ECS != nil {
			w.Problems = append(w.Problems, asked[ecsName(t.Name)]...)
		}
		out = append(out, w)
	}
	for _, c := range d.config.Load().Clients {
		if err := problems[c.Name]; err != nil {
			w := control.TaskDetail{Name: c.Name, Kind: "static", Mode: "netns", Namespaces: c.Namespaces, Problems: []string{err.Error()}}
			if c.Cgroup != "" {
				w.Mode = "cgroup"
			}
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b control.TaskDetail) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// taskProblemsByName are what is not as tasks ask for, remarks included, by
// ecsName.
func (d *daemon) taskProblemsByName() map[string][]string {
	if d.tasks.node == nil {
		return nil
	}
	out := make(map[string][]string)
	for _, p := range d.tasks.node.Problems() {
		text := fmt.Sprintf("%s: %s (%s)", p.Field, p.Detail, p.Reason)
		out[p.Task] = append(out[p.Task], strings.TrimPrefix(text, ": "))
	}
	return out
}

// ecsName is the family/id in the family/id/container of an lb.Task.
func ecsName(task string) string {
	if parts := strings.SplitN(task, "/", 3); len(parts) == 3 {
		return parts[0] + "/" + parts[1]
	}
	return task
}

func describe(t *lb.Task) control.TaskDetail {
	w := control.TaskDetail{Name: t.Name, Kind: "static", Mode: "netns", Namespaces: t.Namespaces, Resolvers: t.Resolvers}
	if t.CgroupID != 0 {
		w.Mode = "cgroup"
	}
	if t.ECS != nil {
		w.Kind, w.Service = "ecs", t.ECS.Service
		w.Family = t.ECS.Family + ":" + t.ECS.Revision
	}
	return w
}

func (d *daemon) whyNotPlanned(p *plan.Desired, name string) string {
	if !d.offSince().IsZero() {
		return "connectd is off on this node, " + whoPulls(d.brake.attribute.Load())
	}
	for _, problem := range p.Problems {
		if strings.HasPrefix(problem, "task "+name+" ") {
			return problem
		}
	}
	return "it is not in the kernel yet"
}
