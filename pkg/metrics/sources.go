// Package metrics serves connectd's state to Prometheus and to whoever asks
// whether the daemon lives and is ready.
//
// Everything is read at scrape time through the functions of Sources; the
// package counts nothing by itself but what it must remember to keep series
// few and counters growing (see ledger.go and budget.go).
package metrics

import (
	"iter"
	"log/slog"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

// Sources is where an Exporter reads. The functions are called at scrape time,
// never two of them at once, and should return within milliseconds. Any but
// Desired may be nil, which leaves its metrics out.
type Sources struct {
	// Desired is the newest plan, nil before the first one.
	Desired    func() *plan.Desired
	Kernel     KernelSource
	Probes     ProbeSource
	HTTP       HTTPSource
	Ejections  func() map[lb.ServiceName]uint64 // in total; see EjectionRecorder
	Terminated func() []Counter                 // connections ended by connectd, by reason
	DNS        func() []Counter                 // queries by outcome
	Events     func() []Counter                 // of the node, by kind
	Off        func() bool                      // no task is served
	// TaskProblems and DockerUp are nil unless ECS is looked at.
	TaskProblems func() []Counter // by reason
	DockerUp     func() bool
	Reconcile    func() Reconcile
	Catalog      func() Catalog
	Config       func() Reload
	CloudWatch   func() CloudWatch // nil unless it is on
	Instance     func() Instance
	Registry     func() Registry  // nil: there is none
	AWS          func() []Call    // of Cloud Map and ECS
	Heartbeat    func() time.Time // when the main loop last went round
	Build        Build

	// Live and Ready answer /livez and /readyz. They may be called at any
	// time, must not wait, and must not depend on AWS. Nil is alive and ready.
	Live  func() error    // an error says why the process should be restarted
	Ready func() []string // names of what is not ready; empty is ready

	Log *slog.Logger // nil discards
}

// KernelSource reads what the BPF programs count.
type KernelSource struct {
	Reasons []string  // of connect failures, the order of ServiceStats.Failures
	Bounds  []float64 // upper bounds of histogram buckets, seconds, without +Inf
	Read    func() (Kernel, error)
}

// Kernel is one reading of the maps. It is not written to by anyone after
// Read returned it.
type Kernel struct {
	Endpoints  map[lb.EndpointID]EndpointStats // those with any traffic ever
	Services   map[lb.ServiceID]ServiceStats   // those with any traffic ever
	Outcomes   []Counter                       // of the hooks' decisions, by reason
	EventsLost uint64                          // ring buffer full
	Maps       []MapFill
}

// EndpointStats counts connections to one endpoint. Bytes include those of
// live connections as sampled, so they may go back a little between readings.
type EndpointStats struct {
	Active        uint64 // open now
	Connections   uint64 // opened ever; going back means that the id was given out anew
	Failures      uint64
	BytesSent     uint64 // to the endpoint
	BytesReceived uint64
	Retransmits   uint64 // segments
}

// ServiceStats counts connects to one service. A count going back means that
// the id was given out anew.
type ServiceStats struct {
	Failures    []uint64 // by KernelSource.Reasons
	ConnectTime Histogram
	SRTT        Histogram
}

// Histogram is a distribution of durations. Counts has one more entry than
// there are bounds, for what is above the last, and is not cumulative.
type Histogram struct {
	Counts          []uint64
	SumMicroseconds uint64
}

// Counter is a count since start with the word it is labelled by.
type Counter struct {
	Reason string
	Value  uint64
}

// MapFill is how full a BPF map is.
type MapFill struct {
	Name       string // without layout version
	Entries    uint64
	MaxEntries uint64 // 0: it cannot run full
	Bytes      uint64 // memory charged for it, 0 if not known
}

// ProbeSource reads what active checks found. Durations are by
// DurationBounds.
type ProbeSource struct {
	Results []string // the order of ProbeStats.Results
	Each    iter.Seq2[lb.ServiceName, ProbeStats]
}

// ProbeStats counts the probes of one service. A count going back means that
// the service was forgotten in between. The slices are valid until the
// iteration goes on.
type ProbeStats struct {
	Results  []uint64
	Duration Histogram
}

// Reconcile is the state of the loop that writes the maps.
type Reconcile struct {
	Revision    uint64        // of the newest plan that is in the kernel whole
	Lag         time.Duration // how long the newest plan has waited to be there; 0 when it is
	Passes      Histogram     // by DurationBounds
	Errors      uint64        // passes that ended in an error, since start
	LastSuccess time.Time     // zero is never
	Services    int           // programmed now
	Endpoints   int           // programmed now
	Tasks       int           // programmed now
}

// Catalog is the state of all catalog files together.
type Catalog struct {
	Files   int // in force, counting those kept from an earlier reading
	Failing int // whose present content is not in force
	Reload  Reload
}

// Reload is how reading files again went. A zero Last means never.
type Reload struct {
	Last        time.Time // whatever came of it
	LastSuccess time.Time // without any error
	OK          bool      // the last one had no error
}

// Build says what runs.
type Build struct {
	Version  string // release
	Revision string // commit
}
