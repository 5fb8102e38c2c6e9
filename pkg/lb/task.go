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
	HostsFile   string   // file with its marked block of names; "" is none
	ResolvConf  string   // the resolv.conf its processes read
	Resolvers   []netip.Addr
	Search      []string // search domains of its resolv.conf
}
