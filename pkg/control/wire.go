package control

import (
	"net/netip"
	"time"
)

// Service is one service as planned.
type Service struct {
	Name              string      `json:"name"` // namespace/discoveryName
	Names             []Name      `json:"names"`
	Protocol          string      `json:"protocol"`
	AppProtocol       string      `json:"appProtocol,omitempty"` // "" is not known: TCP or UDP
	Mode              string      `json:"mode,omitempty"`        // with AppProtocol: proxy or direct
	Policy            string      `json:"policy"`
	HealthCheck       string      `json:"healthCheck,omitempty"` // protocol of its probes; "" is none
	Endpoints         StateCounts `json:"endpoints"`
	ActiveConnections uint64      `json:"activeConnections"`
	Panic             bool        `json:"panic"`      // too few healthy: health is ignored
	LastResort        bool        `json:"lastResort"` // only draining endpoints are left, and used
}

// Name is a name that clients use.
type Name struct {
	DNSName   string       `json:"dnsName"`
	Addresses []netip.Addr `json:"addresses"` // VIPs
	Ports     []uint16     `json:"ports"`
}

// Endpoint is one endpoint of one service.
type Endpoint struct {
	Service           string         `json:"service"` // namespace/discoveryName
	Address           netip.AddrPort `json:"address"`
	Zone              string         `json:"zone,omitempty"`
	Weight            uint16         `json:"weight"`
	State             string         `json:"state"`
	Reason            string         `json:"reason,omitempty"`
	Since             time.Time      `json:"since,omitzero"` // when it entered this state; zero: not known
	Verdict           string         `json:"verdict"`        // what probes say of it
	LastProbe         *Probe         `json:"lastProbe,omitempty"`
	ActiveConnections uint64         `json:"activeConnections"`
	TotalConnections  uint64         `json:"totalConnections"`
	Failures          uint64         `json:"failures"`               // failed connects
	DrainDeadline     time.Time      `json:"drainDeadline,omitzero"` // zero: not draining, or no deadline
	EjectedUntil      time.Time      `json:"ejectedUntil,omitzero"`
	AvoidedBy         []string       `json:"avoidedBy,omitempty"` // tasks for which alone it is ejected
}

// Probe is one finished probe.
type Probe struct {
	At              time.Time `json:"at"`
	DurationSeconds float64   `json:"durationSeconds"`
	Error           string    `json:"error,omitempty"` // "": it passed
}

// Resolution is what one task gets when it asks for a name and connects.
type Resolution struct {
	Task       string       `json:"task"`
	Namespaces []string     `json:"namespaces"` // what the task may use, in order of preference
	Found      bool         `json:"found"`
	Reason     string       `json:"reason"`              // why it is answered so, or why not
	Addresses  []netip.Addr `json:"addresses,omitempty"` // VIPs
	Targets    []Target     `json:"targets,omitempty"`   // services behind the name, each with ports of its own
}

// Target is a service reached through a name.
type Target struct {
	Service    string   `json:"service"`
	Protocol   string   `json:"protocol"`
	Ports      []uint16 `json:"ports"`
	Policy     string   `json:"policy"`
	Panic      bool     `json:"panic"`
	LastResort bool     `json:"lastResort"`
	Endpoints  []Share  `json:"endpoints,omitempty"` // those the task would reach; none: EHOSTUNREACH
}

// Share is an endpoint and its part of a task's new connections.
type Share struct {
	Address netip.AddrPort `json:"address"`
	Zone    string         `json:"zone,omitempty"`
	State   string         `json:"state"`
	Percent float64        `json:"percent"` // of the connections to this service and address family
}

// Severity of a Check.
type Severity string

const (
	SeverityOK   Severity = "ok"
	SeverityWarn Severity = "warn" // works, but not as well as it could
	SeverityFail Severity = "fail"
	SeveritySkip Severity = "skip" // could not be told
)

// Check is one finding of the doctor.
type Check struct {
	Name     string   `json:"name"`
	OK       bool     `json:"ok"` // Severity is ok; filled in by connectd doctor
	Severity Severity `json:"severity"`
	Detail   string   `json:"detail"`
	Fix      string   `json:"fix,omitempty"` // what to do about it
}

// drainRequest is the body of drain and undrain.
type drainRequest struct {
	Service string         `json:"service"`
	Address netip.AddrPort `json:"address"`
}
