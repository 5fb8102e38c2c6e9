package lb

import (
	"net/netip"
	"strings"
	"time"
)

// Limits of Amazon ECS Service Connect (API reference, ServiceConnectService
// and ServiceConnectClientAlias), which connectd keeps so that a catalog can
// move to and from it unchanged.
const (
	MaxDiscoveryName = 64  // characters of a discoveryName
	MaxDNSName       = 127 // characters of a dnsName
	MaxNamespaces    = 256 // namespaces one node can tell apart (bits of a task's scope)
	MaxWeight        = 65535
)

// ServiceName names a service: it is unique in a catalog.
type ServiceName struct {
	Namespace     string
	DiscoveryName string
}

// String returns "namespace/discoveryName", the form used in logs, metric
// labels and the CLI.
func (n ServiceName) String() string { return n.Namespace + "/" + n.DiscoveryName }

// Compare orders names by namespace, then discoveryName.
func (n ServiceName) Compare(o ServiceName) int {
	if c := strings.Compare(n.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(n.DiscoveryName, o.DiscoveryName)
}

// FQDN returns "discoveryName.namespace", a name that always resolves to the
// service's VIP, alias or not.
func (n ServiceName) FQDN() string { return n.DiscoveryName + "." + n.Namespace }

// Protocol is a transport protocol by its IANA number.
type Protocol uint8

const (
	TCP Protocol = 6
	UDP Protocol = 17
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "protocol(" + itoa(int(p)) + ")"
}

// Policy says how an endpoint is chosen for a new connection.
type Policy uint8

const (
	RoundRobin Policy = iota
	LeastConnections
	Random
	SourceHash
)

var policies = [...]string{"roundRobin", "leastConnections", "random", "sourceHash"}

func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return "policy(" + itoa(int(p)) + ")"
}

// ParsePolicy is the inverse of Policy.String; ok is false for any other word.
func ParsePolicy(s string) (p Policy, ok bool) {
	for i, name := range policies {
		if s == name {
			return Policy(i), true
		}
	}
	return 0, false
}

// ClientAlias is a name and port by which clients call a service. DNSName is
// lower case and without a trailing dot; it is never empty in a decoded
// service ("discoveryName.namespace" by default).
type ClientAlias struct {
	DNSName string
	Port    uint16
}

// Service is one catalog entry. A decoded Service is complete (defaults
// filled in), valid, and immutable: a source that finds no change hands out
// the same pointer again, which is how the rest of the daemon sees that
// nothing changed.
type Service struct {
	Name          ServiceName
	Protocol      Protocol
	ClientAliases []ClientAlias
	HealthCheck   *HealthCheck // nil: endpoints are exposed at once and never probed
	LoadBalancing LoadBalancing
	Drain         Drain
	Outlier       Outlier
	Publish       bool       // static endpoints are registered for other nodes too
	HTTP          *HTTP      // nil: nothing is known but the transport
	Endpoints     []Endpoint // sorted by Address, each Address once
}

// Endpoint is one address that serves, as its source lists it.
type Endpoint struct {
	Address  netip.AddrPort // never IPv4-mapped, never zoned
	Zone     string         // availability zone id such as use1-az1; "" is unknown
	Weight   uint16         // share of new connections relative to the others; at least 1
	Draining bool           // no new connections but as a last resort
	Declared Declared       // what its own side says of it
	Task     string         // local task that serves it, which it is probed from; "" is none
	Owner    Owner          `json:",omitzero"` // ECS service that serves it, as far as is known
}

// LoadBalancing is how a service spreads connections.
type LoadBalancing struct {
	Policy Policy
	// PanicThresholdPercent: when fewer than this share of the endpoints is
	// healthy, health is ignored (Envoy's healthy_panic_threshold, default
	// 50). 0 turns panic off.
	PanicThresholdPercent uint8
}

// Drain says what becomes of connections to an endpoint that is going away.
type Drain struct {
	// Deadline is how long connections to a draining endpoint may go on.
	Deadline time.Duration
	// Terminate ends connections at the deadline, and at once when a probe
	// declares a once healthy endpoint dead; otherwise they are left alone.
	Terminate bool
}

// Outlier is passive health checking: Envoy's outlier detection, by connect
// failures, first SYN retransmits, and bad responses over HTTP.
type Outlier struct {
	ConsecutiveFailures uint32        // strikes in a row that eject
	BaseEjection        time.Duration // times the number of ejections so far
	MaxEjection         time.Duration // upper bound of one ejection
	MaxEjectionPercent  uint8         // of a service's endpoints at once, but always at least one
}

// Proxied says whether connections to the service are the forwarder's, as long
// as it stands.
func (s *Service) Proxied() bool { return s.HTTP != nil && !s.HTTP.Direct }
