package metrics

// Series are handed out first come, first kept: a series that a dashboard
// shows does not vanish because something else became busy. Services get ahead
// of endpoints and busy ones ahead of idle ones by limits, so that the idle
// ones listed at start cannot take all the room.
const (
	// MaxSeries bounds what a scrape returns.
	MaxSeries = 20000
	// nodeSeries is kept for what belongs to no service: the node, the
	// process, the runtime, and the service other.
	nodeSeries = 1000

	limitService  = MaxSeries - nodeSeries // services in use
	limitEndpoint = 15000                  // endpoints of services in use
	limitIdle     = 8000                   // services not in use
)

// block is a set of series that is shown whole or summed into other.
type block uint8

const (
	blockState   block = iota // of a service: endpoints by state, panic, ejections
	blockTraffic              // of a service: failures, histograms, endpoint="other"
	blockProbe                // of a service: probes
	blockHTTP                 // of a service: requests
	blockEndpoint
	blockEndpointHTTP // of an endpoint: requests
	blockEndpointGRPC // of an endpoint: calls
	blocks
)

var blockNames = [blocks]string{"service_state", "service_traffic", "service_probe", "service_http", "endpoint", "endpoint_http", "endpoint_grpc"}

// budget hands out series.
type budget struct {
	cost   [blocks]int
	taken  int
	folded [blocks]int // refused in this scrape
}

// take reports whether b may have series of its own, given that it does not
// have them yet; those refused are counted.
func (g *budget) take(b block, limit int) bool {
	if g.taken+g.cost[b] > limit {
		g.folded[b]++
		return false
	}
	g.taken += g.cost[b]
	return true
}

func (g *budget) give(b block) { g.taken -= g.cost[b] }
