package lb

import "time"

// CheckProtocol is what a probe speaks.
type CheckProtocol string

const (
	CheckTCP   CheckProtocol = "tcp"
	CheckHTTP  CheckProtocol = "http"
	CheckHTTPS CheckProtocol = "https"
	CheckGRPC  CheckProtocol = "grpc" // grpc.health.v1.Health/Check over plaintext HTTP/2
)

// CheckFrom is where a probe's socket is made.
type CheckFrom string

const (
	FromNode   CheckFrom = "node"   // the node's own network namespace
	FromCaller CheckFrom = "caller" // a network namespace of a task that may call the service
)

// HealthCheck is an active check of every endpoint of a service.
type HealthCheck struct {
	Protocol           CheckProtocol
	Path               string // http, https: origin form, default "/"
	Port               uint16 // 0: the endpoint's own port
	GRPCService        string // grpc: the service asked about, "" is the whole server
	Interval           time.Duration
	Timeout            time.Duration
	HealthyThreshold   uint32 // successes in a row that make it healthy
	UnhealthyThreshold uint32 // failures in a row that make it unhealthy
	From               CheckFrom
	CAFile             string // https: PEM file that replaces the system's roots
	ServerName         string // https: name to verify and to send; "" is the endpoint's address
	InsecureSkipVerify bool   // https: any certificate will do
}

// Verdict is what probes say of an endpoint.
type Verdict uint8

const (
	VerdictUnknown Verdict = iota // never probed to a conclusion
	VerdictHealthy
	VerdictUnhealthy
)

func (v Verdict) String() string {
	switch v {
	case VerdictHealthy:
		return "healthy"
	case VerdictUnhealthy:
		return "unhealthy"
	}
	return "unknown"
}

// Declared is what an endpoint's own side says of it: its container, or the
// connectd of its node.
type Declared uint8

const (
	DeclaredNothing   Declared = iota // nobody there speaks for it: probes from here decide
	DeclaredPending                   // not ready yet: takes no connections
	DeclaredHealthy                   // probed there, so not from here
	DeclaredUnhealthy                 // was ready, and is not: takes none, but in panic
)

var declared = [...]string{"nothing", "pending", "healthy", "unhealthy"}

func (d Declared) String() string {
	if int(d) < len(declared) {
		return declared[d]
	}
	return "declared(" + itoa(int(d)) + ")"
}

// Probed says whether an endpoint of a service with a health check is probed
// from this node: others are spoken for by their own.
func (e *Endpoint) Probed() bool { return e.Task != "" || e.Declared == DeclaredNothing }

// State is what a plan decided about an endpoint.
type State uint8

const (
	StateActive    State = iota // takes new connections
	StatePending                // has a health check and no first success yet: takes none
	StateUnhealthy              // a probe says dead: none, but in panic
	StateEjected                // passive outlier: none, but in panic
	StateDraining               // none, but as a last resort
	StateRemoved                // gone from the catalog, connections being drained: none ever
)

var states = [...]string{"active", "pending", "unhealthy", "ejected", "draining", "removed"}

func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return "state(" + itoa(int(s)) + ")"
}

// States lists every State, for tables and metrics.
func States() []State {
	return []State{StateActive, StatePending, StateUnhealthy, StateEjected, StateDraining, StateRemoved}
}

// Strike is a run of failures of one task with one endpoint: connects, as
// counted in the kernel, or HTTP requests, as counted by the forwarder or, in
// direct mode, in the kernel. Runs of the two kinds are counted apart. Count 0
// says that the run ended with a success.
type Strike struct {
	Endpoint EndpointID
	Task     TaskID
	Count    uint32 // failures in a row so far
	At       time.Time
	HTTP     bool // requests: 5xx, reset, timeout, or a connect of the forwarder
}

// VerdictChange is a probe's conclusion on one endpoint. By convention it is
// sent only when it differs from the one before.
type VerdictChange struct {
	Endpoint EndpointID
	Verdict  Verdict
	Reason   string // short, for status: "connect: connection refused", "status 503"
}
