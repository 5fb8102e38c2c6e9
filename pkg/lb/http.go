package lb

import "time"

// AppProtocol is what a service's endpoints speak, by the words of the ECS
// API (portMappings.appProtocol). A service without HTTP is plain TCP or UDP.
type AppProtocol uint8

const (
	AppHTTP  AppProtocol = iota // HTTP/1.1
	AppHTTP2                    // HTTP/2 with prior knowledge, over plaintext
	AppGRPC                     // HTTP/2, and gRPC status counts
)

var appProtocols = [...]string{"http", "http2", "grpc"}

func (p AppProtocol) String() string {
	if int(p) < len(appProtocols) {
		return appProtocols[p]
	}
	return "appProtocol(" + itoa(int(p)) + ")"
}

// ParseAppProtocol is the inverse of AppProtocol.String; ok is false for any
// other word.
func ParseAppProtocol(s string) (p AppProtocol, ok bool) {
	for i, name := range appProtocols {
		if s == name {
			return AppProtocol(i), true
		}
	}
	return 0, false
}

// HTTP is what is known of a service that speaks HTTP. Fields but Protocol and
// Direct are zero in direct mode. A timeout that is not 0 is at least 50 ms.
type HTTP struct {
	Protocol AppProtocol
	// Direct leaves connections to the kernel, which only reads first lines:
	// metrics and no hop. Otherwise the forwarder carries every request.
	Direct bool
	// RequestTimeout bounds all tries of a request together, until the head of
	// its response. 0 is no bound. Service Connect's default is 15 s.
	RequestTimeout time.Duration
	// IdleTimeout ends a connection or stream on which nothing moves. 0 is
	// never. Service Connect's default is 5 minutes.
	IdleTimeout time.Duration
	Retry       Retry
	AccessLog   AccessLog
}

// Mode is "proxy" or "direct", the words of the catalog.
func (h *HTTP) Mode() string {
	if h.Direct {
		return "direct"
	}
	return "proxy"
}

// Retry says which requests are tried again. See package retry.
type Retry struct {
	Attempts   uint8 // tries after the first; Service Connect's are 2
	AllMethods bool  // methods that are not idempotent, too, as Service Connect does
	// BudgetPercent of the requests may be tried again, and in any case
	// BudgetFloor of them a second.
	BudgetPercent uint8
	BudgetFloor   uint16
}

// AccessLogFormat is one of Service Connect's two.
type AccessLogFormat uint8

const (
	LogText AccessLogFormat = iota
	LogJSON
)

// AccessLog says where requests of a service are logged. The zero value is
// nowhere.
type AccessLog struct {
	Path            string // absolute; "-" is standard output; "" is no log
	Format          AccessLogFormat
	QueryParameters bool // with the query part of the path
}
