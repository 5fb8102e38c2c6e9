// Package docker tells what Docker says of the ECS containers of this node, and
// what the kernel says sooner: a container's cgroup and first process are seen
// before Docker tells of its start.
package docker

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// labelTask stands on every container that the ECS agent makes, pause
// containers too. Without it a container is none of ours.
const labelTask = "com.amazonaws.ecs.task-arn"

// State is where in its life a container is.
type State string

// The states of a container.
const (
	Created State = "created" // not started, or waiting to be restarted by its policy
	Running State = "running" // paused counts as running
	Exited  State = "exited"
)

// Port is a port that Docker publishes.
type Port struct {
	Container uint16
	Protocol  string // "tcp", "udp" or "sctp"
	HostAddr  netip.Addr
	Host      uint16
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Protocol, b.Protocol),
		a.HostAddr.Compare(b.HostAddr), cmp.Compare(a.Host, b.Host))
}

// Container is what is known of one container that has ECS labels. It is never
// changed once handed out, nor are its maps.
type Container struct {
	ID, Name string
	// Labels are the container's as Docker merged them with its image's. One that
	// stands in ImageLabels with the same value may not be the operator's word.
	Labels      map[string]string
	ImageLabels map[string]string
	// NetworkMode is "host", "none", "bridge", "default", a network's name, or
	// "container:<id>".
	NetworkMode string
	// CgroupParent and Hostname are known when Docker was asked in full, at once
	// after create or else after start.
	CgroupParent string
	Hostname     string
	// HostsPath and ResolvConfPath are files on the node. Until Docker tells, they
	// are where Docker will put them, which is before the first process.
	HostsPath      string
	ResolvConfPath string
	// PID is the first process as the node sees it, 0 while there is none. It may
	// be known while State is Created: between the cgroup's creation and the
	// program's first instruction.
	PID     int
	Cgroup  string // its cgroup2 directory, absolute; "" is not known
	State   State
	Started time.Time
	// Stopping: Docker sent the container its stop signal, or SIGKILL.
	Stopping bool
	Health   string // "", "starting", "healthy" or "unhealthy": its own check's
	// Ports are known, if PortsKnown, once Docker was asked after the start.
	Ports      []Port
	PortsKnown bool
	// ChecksReadiness: its own check asks connectd whether the task is ready, so
	// it cannot decide that.
	ChecksReadiness bool
	Restarts        int // by its restart policy
}

// Equal reports whether both say the same.
func (c *Container) Equal(o *Container) bool {
	return c.ID == o.ID && c.Name == o.Name && c.NetworkMode == o.NetworkMode && c.CgroupParent == o.CgroupParent &&
		c.Hostname == o.Hostname && c.ResolvConfPath == o.ResolvConfPath && c.HostsPath == o.HostsPath &&
		c.PID == o.PID && c.Cgroup == o.Cgroup && c.State == o.State && c.Started.Equal(o.Started) &&
		c.Stopping == o.Stopping && c.Health == o.Health && c.Restarts == o.Restarts &&
		c.ChecksReadiness == o.ChecksReadiness && c.PortsKnown == o.PortsKnown &&
		slices.Equal(c.Ports, o.Ports) && maps.Equal(c.Labels, o.Labels) && maps.Equal(c.ImageLabels, o.ImageLabels)
}
