package control

import "time"

// Status is how the daemon is.
type Status struct {
	// Verdict and the derived part of Problems are filled in by the server.
	Verdict  Verdict   `json:"verdict"`
	Problems []Problem `json:"problems"` // empty is good

	Version       string    `json:"version"`
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptimeSeconds"`
	NotReady      []string  `json:"notReady,omitempty"` // what is being waited for; empty: ready
	Off           time.Time `json:"off,omitzero"`       // since when connectd is off here, by command or attribute; zero: it is on

	Zone string `json:"zone,omitempty"` // this node's availability zone id; "": none, and no preference for one

	Config    Config        `json:"config"`
	Catalog   []CatalogFile `json:"catalog"`
	Reconcile Reconcile     `json:"reconcile"`
	Tasks     []Task        `json:"tasks"`
	Kernel    Kernel        `json:"kernel"`
	Services  ServiceCounts `json:"services"`
	Endpoints StateCounts   `json:"endpoints"`
}

// Verdict is a Status in one word.
type Verdict string

const (
	VerdictOK       Verdict = "ok"
	VerdictDegraded Verdict = "degraded" // serves, but with problems
	VerdictNotReady Verdict = "notReady" // does not serve yet, or not all of what it should
)

// Problem is something that is wrong now.
type Problem struct {
	Name    string `json:"name"` // stable, such as "mapFull"
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"` // what to do
}

// Config is the config file as last read.
type Config struct {
	Path          string    `json:"path"`
	Loaded        time.Time `json:"loaded,omitzero"`         // when the config in use was read
	Failed        time.Time `json:"failed,omitzero"`         // when the last reload failed; zero if it did not
	Error         string    `json:"error,omitempty"`         // of the last reload; lines "file:line: detail"
	RestartNeeded []string  `json:"restartNeeded,omitempty"` // fields that changed and need a restart
}

// CatalogFile is one file that lists services.
type CatalogFile struct {
	Path     string    `json:"path"`
	Services int       `json:"services"`         // in use from this file
	Loaded   time.Time `json:"loaded,omitzero"`  // when what is in use was read
	Errors   []string  `json:"errors,omitempty"` // why the file as it is now is not in use
}

// Reconcile is how far the kernel is behind the plan.
type Reconcile struct {
	Revision    uint64    `json:"revision"` // of the plan
	Applied     uint64    `json:"applied"`  // revision that is in the kernel
	LagSeconds  float64   `json:"lagSeconds"`
	Errors      uint64    `json:"errors"` // since the start
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	Failing     bool      `json:"failing"`  // the last try failed
	Repaired    uint64    `json:"repaired"` // entries that resyncs found wrong and put right
}

// Task is a local client.
type Task struct {
	Name       string   `json:"name"`
	Kind       string   `json:"kind"`   // netns, pid or cgroup
	Target     string   `json:"target"` // path or process id
	Namespaces []string `json:"namespaces"`
	Attached   bool     `json:"attached"`
	Error      string   `json:"error,omitempty"` // why not attached
}

// Kernel is the part of connectd inside the kernel.
type Kernel struct {
	Release  string    `json:"release"` // such as "6.12.0"
	Cgroup   string    `json:"cgroup"`  // where the hooks are attached
	Programs []Program `json:"programs"`
	Maps     []MapFill `json:"maps"`
}

// Program is one hook.
type Program struct {
	Name     string `json:"name"` // such as "connect4"
	Attached bool   `json:"attached"`
	Error    string `json:"error,omitempty"`
}

// MapFill says how full a map is. MaxEntries 0 means that the map cannot run
// full.
type MapFill struct {
	Name       string `json:"name"`
	Entries    uint64 `json:"entries"`
	MaxEntries uint64 `json:"maxEntries"`
	Bytes      uint64 `json:"bytes"` // kernel memory; 0: unknown
}

// ServiceCounts counts services; one may be in several of the last three.
type ServiceCounts struct {
	Total      int `json:"total"`
	Panic      int `json:"panic"`
	LastResort int `json:"lastResort"`
	NoEndpoint int `json:"noEndpoint"` // connects to them fail with EHOSTUNREACH
}

// StateCounts counts endpoints by lb.State's words; a state without endpoints
// may be missing.
type StateCounts map[string]int

// Total is the sum over all states.
func (c StateCounts) Total() int {
	n := 0
	for _, v := range c {
		n += v
	}
	return n
}
