package plan

import (
	"net/netip"
	"time"

	"connectd/pkg/lb"
)

// Desired is everything the node should look like. It is immutable: what did
// not change since the last Step is the same pointer, so that readers compare
// pointers instead of contents.
type Desired struct {
	Revision uint64 // grows by one with every Step that changed something

	Services []*Service // sorted by name
	Tasks    []*Task    // sorted by name
	Local    []Served   // what local tasks serve, sorted by task, service and address

	// Ready is where the forwarder tells a task whether it is ready, the same
	// in every plan. It is no service's, and every task may use it.
	Ready Frontend

	// Terminate lists endpoints whose connections must end now: a once
	// healthy endpoint that a probe declared dead, or a drain past its
	// deadline. It is level-triggered: an endpoint stays listed as long as
	// the reason holds.
	Terminate []lb.EndpointID

	// Watch lists endpoints whose count of live connections the planner
	// wants in the next Observation: draining ones, removed ones, and ids
	// waiting to be reused.
	Watch []lb.EndpointID

	// Wake is when Step must run again though nothing changed: the nearest
	// drain deadline, end of an ejection, or end of an id's quarantine. Zero
	// means never.
	Wake time.Time

	// Journal is what must be on disk before any of this reaches the kernel:
	// ids and VIPs given out, verdicts, deadlines. Append it as it is;
	// New reads it back. Empty when nothing was given out, and nil once the
	// reconciler has taken it.
	Journal []byte

	// Problems says what was left out and why, sorted: more services,
	// namespaces, endpoints, slots or tasks than there is room for. Empty is
	// good.
	Problems []string
}

// Service is one service as planned.
type Service struct {
	*lb.Service
	ID          lb.ServiceID
	NamespaceID lb.NamespaceID
	Names       []Name          // every name that resolves to it, sorted, each once
	Endpoints   []Endpoint      // catalog endpoints and removed ones still draining, sorted by address
	SlotsV4     []lb.EndpointID // choices for a connect to an IPv4 VIP; empty means EHOSTUNREACH
	SlotsV6     []lb.EndpointID // the same for IPv6 VIPs
	Panic       bool            // too few healthy: health is being ignored
	LastResort  bool            // only draining endpoints are left and are being used
}

// Frontend is one VIP:port/protocol of a service.
type Frontend struct {
	Address  netip.AddrPort
	Protocol lb.Protocol
}

// Name is a name with its addresses. V4 or V6 is the zero Addr when the
// service has no endpoint of that family (a service without endpoints has V4).
type Name struct {
	DNSName string
	V4, V6  netip.Addr
	Ports   []uint16 // the ports of this name's client aliases: VIP:port is a Frontend
}

// Endpoint is one endpoint as planned.
type Endpoint struct {
	lb.Endpoint
	ID         lb.EndpointID
	State      lb.State
	Verdict    lb.Verdict
	Reason     string    // why it is in this state, for people: "drained by command", "probe: status 503"
	Since      time.Time // when it entered this state, as far as this run knows
	DrainUntil time.Time // draining or removed: when its connections end; zero is never
	EjectUntil time.Time // ejected: when it comes back
}

// DrainedByCommand is the Reason of an endpoint that somebody drained here,
// whatever the catalog says of it.
const DrainedByCommand = "drained by command"

// Task is one task as planned.
type Task struct {
	lb.Task
	ID      lb.TaskID
	Scope   [lb.MaxNamespaces / 64]uint64 // bit NamespaceID is set for each namespace it may reach
	HashKey uint32                        // source hash key: a hash of Name, the same on every run
	Avoid   []lb.EndpointID               // ejected for this task alone, sorted
	Owner   lb.Owner                      // of Task.ECS
	// Ready says that all the task serves was exposed to clients at once, now
	// or earlier in its life; one that serves nothing is ready. Sources list
	// what a task serves no later than the task itself, or it is ready too soon.
	Ready bool
}
