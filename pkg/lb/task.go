package lb

import "net/netip"

// Task is a local workload that may call services: an ECS task or a static
// client. Exactly one of NetnsCookie and CgroupID is set, and by it the
// kernel knows the caller.
type Task struct {
	Name        string   // unique on the node: a task ARN or a static client's name
	Namespaces  []string // what it may resolve and reach, in order of preference
	NetnsCookie uint64   // SO_NETNS_COOKIE of its network namespace
	CgroupID    uint64   // cgroup2 id (inode) of its topmost cgroup
	CgroupLevel uint8    // depth of that cgroup below the root of the tree, for the ancestor lookup
	NetnsPath   string   // how to enter its network namespace; "" is the node's own
	HostsFiles  []string // files with its marked block of names, sorted: one for each container that has its own
	ResolvConf  string   // the resolv.conf its processes read
	Resolvers   []netip.Addr
	Search      []string // search domains of its resolv.conf
	ECS         *ECSTask // nil for a static client; immutable
}

// ECSTask is what ECS calls a task.
type ECSTask struct {
	ARN      string
	Cluster  string // name or ARN, as the agent labels it
	Family   string // of its task definition
	Revision string // of its task definition
	Service  string // ECS service that started it; "" is none, or not known
}

// PortMapping is one of a task definition's portMappings.
type PortMapping struct {
	Container     string // name in the task definition; "" is any
	Name          string // portName that a Service Connect service refers to; "" is none
	ContainerPort uint16
	HostPort      uint16   // 0: as the container port, or one that Docker chose
	Protocol      Protocol // TCP by default
	AppProtocol   string   // http, http2, grpc; "" is TCP
}
