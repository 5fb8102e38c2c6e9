package control

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Event is something that happened on the node, or happened so often.
type Event struct {
	Seq     uint64         `json:"seq"` // grows by one with each since the daemon started
	At      time.Time      `json:"at"`
	Last    time.Time      `json:"last,omitzero"` // the same once more, counted here; zero: it happened once
	Times   uint64         `json:"times"`         // at least 1
	Kind    EventKind      `json:"kind"`
	Task    string         `json:"task,omitempty"`
	Name    string         `json:"name,omitempty"`   // a service, or a dnsName that a task used
	Address netip.AddrPort `json:"address,omitzero"` // an endpoint; of a refusal the VIP and port
	Reason  string         `json:"reason,omitempty"` // of a refusal one word
	Detail  string         `json:"detail,omitempty"` // for people
}

// EventKind is what an Event is about. For endpoints it is the lb.State that
// they are in now.
type EventKind string

const (
	EventRefused    EventKind = "refused"    // a task did not get what it asked for
	EventProblem    EventKind = "problem"    // something is wrong with a task
	EventJoined     EventKind = "joined"     // a task is served
	EventLeft       EventKind = "left"       // a task is served no more
	EventPanic      EventKind = "panic"      // a service ignores health
	EventLastResort EventKind = "lastResort" // a service uses draining endpoints
	EventOver       EventKind = "over"       // the end of either, which Reason names
	EventLeaving    EventKind = "leaving"    // the instance is going away, its endpoints drain
	EventStaying    EventKind = "staying"    // it is not, after all
	EventOff        EventKind = "off"        // connectd was taken off the node
	EventOn         EventKind = "on"
	EventMore       EventKind = "more" // so many more at once that they are not listed
)

// EventFilter selects events; what is empty does not restrict.
type EventFilter struct {
	Task  string // its name, or the last part of an ARN
	Kinds []string
}

func (f *EventFilter) keep(e *Event) bool {
	if f.Task != "" && !IsTask(e.Task, f.Task) {
		return false
	}
	return len(f.Kinds) == 0 || slices.Contains(f.Kinds, string(e.Kind))
}

// IsTask says whether a user means this task by arg: its name, or what is
// behind the last slash of it.
func IsTask(name, arg string) bool { return name == arg || strings.HasSuffix(name, "/"+arg) }

// Events is a part of the list of events, oldest first.
type Events struct {
	Events []Event `json:"events"`
	Cursor string  `json:"cursor"`           // what to ask with for later ones
	Missed uint64  `json:"missed,omitempty"` // later than the cursor asked with, and no longer held

	// Changed is closed when there is another.
	Changed <-chan struct{} `json:"-"`
}

// Connection is one tracked connection of a task.
type Connection struct {
	Task      string         `json:"task"`
	Name      string         `json:"name,omitempty"`    // dnsName; "" when the VIP is no name's any more
	Service   string         `json:"service,omitempty"` // the same
	Protocol  string         `json:"protocol"`          // tcp, udp; through the forwarder http/1.1, http/2, or http before the first request
	VIP       netip.AddrPort `json:"vip"`
	Endpoint  netip.AddrPort `json:"endpoint,omitzero"` // through the forwarder that of an HTTP/1 request in flight
	Local     netip.AddrPort `json:"local,omitzero"`    // the task's own end
	State     string         `json:"state"`             // connecting, established, closing; of UDP connected
	Started   time.Time      `json:"started,omitzero"`
	Bytes     *Transferred   `json:"bytes,omitempty"` // nil: not known
	Forwarder *Forwarded     `json:"forwarder,omitempty"`
}

// Transferred is payload as the task's socket counts it.
type Transferred struct {
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
}

// Forwarded is what the forwarder knows of a connection that it holds.
type Forwarded struct {
	Requests int `json:"requests"` // begun
	InFlight int `json:"inFlight"`
}

// Connections are those asked for, MaxConnections of them at most.
type Connections struct {
	Connections []Connection `json:"connections"`
	Total       int          `json:"total"` // that were asked for and exist
}

// MaxConnections bounds how many connections are listed at once: each costs a
// request to the kernel, and 10,000 of them a tenth of a second.
const MaxConnections = 10000

// ConnectionFilter selects connections; what is empty does not restrict.
type ConnectionFilter struct {
	Task    string // as in EventFilter
	Service string // as in ServiceFilter
}

// TaskDetail is one task of the node.
type TaskDetail struct {
	Name        string       `json:"name"`
	Kind        string       `json:"kind"`              // ecs or static
	Mode        string       `json:"mode"`              // netns or cgroup: what the kernel knows it by
	Family      string       `json:"family,omitempty"`  // of ECS, with its revision
	Service     string       `json:"service,omitempty"` // of ECS
	Namespaces  []string     `json:"namespaces"`        // in order of preference
	Resolvers   []netip.Addr `json:"resolvers"`
	Connections uint64       `json:"connections"` // now
	Attached    bool         `json:"attached"`
	Problems    []string     `json:"problems,omitempty"` // why not attached, and what else is wrong
}

// Brake says whether connectd is off on this node.
type Brake struct {
	Off   time.Time `json:"off,omitzero"` // since when; zero: it is on
	Tasks int       `json:"tasks"`        // on this node, served or not
}
