package settings

import (
	"math"
	"path/filepath"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

var (
	timeoutKeys   = []string{"idleTimeoutSeconds", "perRequestTimeoutSeconds"}
	retryKeys     = []string{"attempts", "methods", "budgetPercent", "budgetFloorPerSecond"}
	accessLogKeys = []string{"format", "includeQueryParameters", "path"}

	// proxyKeys are the fields of a service that only the forwarder obeys.
	proxyKeys = []string{"timeout", "retry", "accessLog"}
)

const (
	idleTimeout       = 5 * time.Minute  // Service Connect's default for HTTP
	perRequestTimeout = 15 * time.Second // the same
	// maxTimeout is the ECS API's bound, 68 years: what it accepts we do.
	maxTimeout = math.MaxInt32 * time.Second

	maxAttempts = 5     // tries after the first: more only multiply the load of a failing service
	maxFloor    = 10000 // of retry.budgetFloorPerSecond: above that it is no bound
	maxLogPath  = 4095  // bytes of a path (PATH_MAX without its NUL)
)

// http returns nil for a service without appProtocol, in which every other
// field of HTTP is an error. In direct mode those of the forwarder are.
func (d Decoder) http(m strictyaml.Map) *lb.HTTP {
	protocol, ok := lb.ParseAppProtocol(m.Enum("appProtocol", "", lb.AppHTTP.String(), lb.AppHTTP2.String(), lb.AppGRPC.String()))
	h := &lb.HTTP{Protocol: protocol}
	h.IdleTimeout, h.RequestTimeout = Timeouts(m.Get("timeout"))
	h = d.forwarding(m, h, m.Has("appProtocol"))
	if !ok {
		return nil
	}
	return h
}

// forwarding reads the fields of HTTP that no port mapping has. Where nothing
// says that the service speaks HTTP each is an error.
func (d Decoder) forwarding(m strictyaml.Map, h *lb.HTTP, speaks bool) *lb.HTTP {
	h.Direct = m.Enum("mode", "proxy", "proxy", "direct") == "direct"
	h.Retry = retry(m.Map("retry", retryKeys...))
	h.AccessLog = d.accessLog(m.Map("accessLog", accessLogKeys...))
	switch {
	case !speaks:
		refuse(m, "is only for services with appProtocol", append([]string{"mode"}, proxyKeys...))
	case h.Direct:
		refuse(m, "is not for mode direct, which has no forwarder", proxyKeys)
		return &lb.HTTP{Protocol: h.Protocol, Direct: true}
	}
	return h
}

// refuse reports each of the keys that is in the mapping.
func refuse(m strictyaml.Map, why string, keys []string) {
	for _, key := range keys {
		if m.Has(key) {
			m.Get(key).Errorf("%s", why)
		}
	}
}

// Timeouts reads an object of the ECS API's idleTimeoutSeconds and
// perRequestTimeoutSeconds. An absent one is Service Connect's for HTTP.
func Timeouts(v strictyaml.Value) (idle, perRequest time.Duration) {
	m := v.Map(timeoutKeys...)
	return timeout(m.Get("idleTimeoutSeconds"), idleTimeout), timeout(m.Get("perRequestTimeoutSeconds"), perRequestTimeout)
}

// timeout reads a duration of which 0 is none. The ECS API has whole seconds
// only; as everywhere in a catalog decimals are welcome.
func timeout(v strictyaml.Value, def time.Duration) time.Duration {
	d := v.Seconds(def, 0, maxTimeout)
	if d > 0 && d < minSeconds {
		v.Errorf("%g is neither 0 nor in %g-%d seconds", d.Seconds(), minSeconds.Seconds(), maxTimeout/time.Second)
	}
	return d
}

func retry(m strictyaml.Map) lb.Retry {
	return lb.Retry{
		Attempts:      uint8(m.Int("attempts", 2, 0, maxAttempts)),
		AllMethods:    m.Enum("methods", "idempotent", "idempotent", "all") == "all",
		BudgetPercent: uint8(m.Int("budgetPercent", 20, 0, 100)),
		BudgetFloor:   uint16(m.Int("budgetFloorPerSecond", 3, 0, maxFloor)),
	}
}

// accessLog returns the zero value, which is no log, for an absent one.
func (d Decoder) accessLog(m strictyaml.Map) lb.AccessLog {
	if !m.Exists() {
		return lb.AccessLog{}
	}
	m.Require("format", "path")
	l := lb.AccessLog{
		Path:            m.Checked("path", "", checkLogPath),
		QueryParameters: m.Enum("includeQueryParameters", "DISABLED", "DISABLED", "ENABLED") == "ENABLED",
	}
	if m.Enum("format", "TEXT", "TEXT", "JSON") == "JSON" {
		l.Format = lb.LogJSON
	}
	if !d.Local && l.Path != "" && l.Path != "-" {
		m.Get("path").Errorf("%q is only for catalog files, it names a file of the node; - is the daemon's output", l.Path)
	}
	if l.Path != "" && l.Path != "-" {
		l.Path = filepath.Clean(l.Path) // services with one path share one file, however it is spelled
	}
	return l
}

// checkLogPath says what keeps a path from being that of a log file, or "-".
func checkLogPath(s string) string {
	switch {
	case s == "-":
		return ""
	case !filepath.IsAbs(s):
		return "is neither an absolute path nor -"
	case strings.HasSuffix(s, "/") || filepath.Clean(s) == "/":
		return "is a directory"
	case len(s) > maxLogPath:
		return "is longer than 4095 bytes"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "has a control character"
	}
	return ""
}
