package demo

import (
	"net/netip"
	"time"
)

// clientVariable, when set, makes Run the long-lived client that a demo starts
// of its own program: it reads requests and writes replies, as JSON.
const clientVariable = "CONNECTD_DEMO_CLIENT"

// request is one line to the long-lived client.
type request struct {
	Op     string `json:"op"`     // resolve, get, udp, load, stop, hold, stats
	Target string `json:"target"` // a name (resolve), else host:port
	Count  int    `json:"count"`  // workers (load), connections (hold)
}

// reply is one line from it.
type reply struct {
	Error     string       `json:"error,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // resolve
	Peer      string       `json:"peer,omitempty"`      // get: what getpeername says
	Text      string       `json:"text,omitempty"`      // get, udp: what the server said
	Load      loadStats    `json:"load"`
	Held      []heldStats  `json:"held,omitempty"`
}

// loadStats counts new connections, each with one request.
type loadStats struct {
	OK          int            `json:"ok"`
	Failed      int            `json:"failed"`
	ByServer    map[string]int `json:"byServer"`
	LastFailure time.Time      `json:"lastFailure,omitzero"`
	LastError   string         `json:"lastError,omitempty"`
}

// heldStats is one connection kept open, with a request every 20 ms.
type heldStats struct {
	Server   string    `json:"server"`
	Requests int       `json:"requests"`
	Ended    time.Time `json:"ended,omitzero"`
	Error    string    `json:"error,omitempty"`
}

// since is what came after an earlier reading.
func (s loadStats) since(earlier loadStats) loadStats {
	diff := s
	diff.OK -= earlier.OK
	diff.Failed -= earlier.Failed
	diff.ByServer = map[string]int{}
	for name, n := range s.ByServer {
		diff.ByServer[name] = n - earlier.ByServer[name]
	}
	return diff
}
