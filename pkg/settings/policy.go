package settings

import (
	"path/filepath"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

const (
	maxPath      = 1024 // characters of healthCheck.path
	maxThreshold = 100  // of healthCheck's thresholds
	maxFailures  = 1000 // of outlier.consecutiveFailures
)

func balancing(m strictyaml.Map) lb.LoadBalancing {
	policy, _ := lb.ParsePolicy(m.Enum("policy", lb.RoundRobin.String(),
		lb.RoundRobin.String(), lb.LeastConnections.String(), lb.Random.String(), lb.SourceHash.String()))
	return lb.LoadBalancing{
		Policy:                policy,
		PanicThresholdPercent: uint8(m.Int("panicThresholdPercent", 50, 0, 100)),
	}
}

func drain(m strictyaml.Map) lb.Drain {
	return lb.Drain{
		Deadline:  m.Seconds("deadlineSeconds", 30*time.Second, minSeconds, maxSeconds),
		Terminate: m.Enum("connections", "terminate", "terminate", "leave") == "terminate",
	}
}

func outlier(m strictyaml.Map) lb.Outlier {
	o := lb.Outlier{
		ConsecutiveFailures: uint32(m.Int("consecutiveFailures", 5, 1, maxFailures)),
		BaseEjection:        m.Seconds("baseEjectionSeconds", 30*time.Second, minSeconds, maxSeconds),
		MaxEjectionPercent:  uint8(m.Int("maxEjectionPercent", 50, 0, 100)),
	}
	o.MaxEjection = m.Seconds("maxEjectionSeconds", defaultMaxEjection(o.BaseEjection), minSeconds, maxSeconds)
	if o.MaxEjection < o.BaseEjection {
		m.Get("maxEjectionSeconds").Errorf("%g is less than baseEjectionSeconds (%g)", o.MaxEjection.Seconds(), o.BaseEjection.Seconds())
	}
	return o
}

// defaultMaxEjection is Envoy's 300 s, or the first ejection's time if that is
// more.
func defaultMaxEjection(base time.Duration) time.Duration { return max(300*time.Second, base) }

// healthCheck returns nil for an absent one.
func (d Decoder) healthCheck(m strictyaml.Map) *lb.HealthCheck {
	if !m.Exists() {
		return nil
	}
	h := check(m)
	h.CAFile = d.caFile(m.Get("caFile"))
	if h.InsecureSkipVerify && m.Has("caFile") {
		m.Get("insecureSkipVerify").Errorf("true contradicts caFile")
	}
	only(m, h.Protocol, "path", lb.CheckHTTP, lb.CheckHTTPS)
	only(m, h.Protocol, "grpcService", lb.CheckGRPC)
	only(m, h.Protocol, "caFile", lb.CheckHTTPS)
	only(m, h.Protocol, "serverName", lb.CheckHTTPS)
	only(m, h.Protocol, "insecureSkipVerify", lb.CheckHTTPS)
	if !d.Local {
		refuse(m, "is only for catalog files, a task is probed from its own network namespace", []string{"from"})
	}
	return h
}

// check reads what stands for itself; of the zero Map it is the check with all
// defaults.
func check(m strictyaml.Map) *lb.HealthCheck {
	h := &lb.HealthCheck{
		Protocol: lb.CheckProtocol(m.Enum("protocol", string(lb.CheckTCP),
			string(lb.CheckTCP), string(lb.CheckHTTP), string(lb.CheckHTTPS), string(lb.CheckGRPC))),
		Port:               uint16(m.Int("port", 0, 1, maxPort)),
		Interval:           m.Seconds("intervalSeconds", 10*time.Second, minSeconds, maxSeconds),
		HealthyThreshold:   uint32(m.Int("healthyThreshold", 2, 1, maxThreshold)),
		UnhealthyThreshold: uint32(m.Int("unhealthyThreshold", 3, 1, maxThreshold)),
		From:               lb.CheckFrom(m.Enum("from", string(lb.FromNode), string(lb.FromNode), string(lb.FromCaller))),
		GRPCService:        m.Checked("grpcService", "", checkGRPCService),
		ServerName:         m.Checked("serverName", "", CheckDNSName),
		InsecureSkipVerify: m.Bool("insecureSkipVerify", false),
	}
	h.Timeout = m.Seconds("timeoutSeconds", defaultTimeout(h.Interval), minSeconds, maxSeconds)
	if h.Timeout > h.Interval {
		m.Get("timeoutSeconds").Errorf("%g is more than intervalSeconds (%g)", h.Timeout.Seconds(), h.Interval.Seconds())
	}
	if h.Protocol == lb.CheckHTTP || h.Protocol == lb.CheckHTTPS {
		h.Path = m.Checked("path", "/", checkPath)
	}
	return h
}

// defaultTimeout of a probe is 5 s, or the interval if that is less.
func defaultTimeout(interval time.Duration) time.Duration { return min(5*time.Second, interval) }

// only reports a key that means nothing to the protocol.
func only(m strictyaml.Map, protocol lb.CheckProtocol, key string, allowed ...lb.CheckProtocol) {
	words := make([]string, len(allowed))
	for i, p := range allowed {
		if p == protocol {
			return
		}
		words[i] = string(p)
	}
	if m.Has(key) {
		m.Get(key).Errorf("is only for protocol %s", strings.Join(words, " or "))
	}
}

// caFile resolves a path relative to the decoder's folder.
func (d Decoder) caFile(v strictyaml.Value) string {
	path, ok := v.Text()
	if !ok {
		return ""
	}
	if !d.Local {
		v.Errorf("is only for catalog files, it names a file of the node")
		return ""
	}
	if path == "" {
		v.Errorf(`"" is no path`)
		return ""
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(d.Dir, path)
	}
	if d.CheckCA != nil {
		if err := d.CheckCA(path); err != nil {
			v.Errorf("%q: %s", path, err)
		}
	}
	return path
}

func checkPath(s string) string {
	switch {
	case !strings.HasPrefix(s, "/"):
		return "does not begin with /"
	case len(s) > maxPath:
		return "is longer than 1024 characters"
	}
	return checkVisible(s, "#")
}

func checkGRPCService(s string) string {
	if len(s) > maxPath {
		return "is longer than 1024 characters"
	}
	return checkVisible(s, "")
}

// checkVisible allows visible ASCII but for the characters of except.
func checkVisible(s, except string) string {
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(except, r) {
			return "has a character that must be percent-encoded or left out"
		}
	}
	return ""
}
