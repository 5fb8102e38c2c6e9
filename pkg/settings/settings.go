// Package settings reads and writes the optional fields of a service: the same
// words with the same defaults and bounds in a catalog file, in a task's
// label, and in an attribute of a Cloud Map instance. It is a leaf that those
// three share.
package settings

import (
	"slices"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/strictyaml"
)

var (
	settingKeys = []string{
		"protocol", "appProtocol", "mode", "healthCheck", "loadBalancing", "drain", "outlier", "timeout", "retry", "accessLog",
	}
	balanceKeys = []string{"policy", "panicThresholdPercent"}
	drainKeys   = []string{"deadlineSeconds", "connections"}
	outlierKeys = []string{"consecutiveFailures", "baseEjectionSeconds", "maxEjectionSeconds", "maxEjectionPercent"}
	checkKeys   = []string{
		"protocol", "path", "port", "grpcService", "intervalSeconds", "timeoutSeconds", "healthyThreshold",
		"unhealthyThreshold", "from", "caFile", "serverName", "insecureSkipVerify",
	}
	// givenKeys are those that a port mapping and Service Connect's own
	// configuration say.
	givenKeys = []string{"protocol", "appProtocol", "timeout"}
)

const (
	maxPort    = 65535
	maxAliases = 64                    // client aliases of a service; each costs a frontend for each of its addresses
	minSeconds = 50 * time.Millisecond // of any duration: below it timers say little on a busy node
	maxSeconds = 24 * time.Hour
)

// Keys returns the keys that Decode reads.
func Keys() []string { return slices.Clone(settingKeys) }

// Objects returns the keys of each object inside a service.
func Objects() map[string][]string {
	return map[string][]string{
		"clientAliases[]": aliasKeys, "healthCheck": checkKeys, "loadBalancing": balanceKeys, "drain": drainKeys,
		"outlier": outlierKeys, "timeout": timeoutKeys, "retry": retryKeys, "accessLog": accessLogKeys,
	}
}

// Decoder decodes the optional fields of a service. The zero Decoder is for
// text from outside the node, which must not name files that the daemon, as
// root, would open: healthCheck.caFile is an error, and so is an
// accessLog.path but "-". healthCheck.from is one too: what such a text
// speaks of is probed by the node of its task alone.
type Decoder struct {
	// Local allows what the zero Decoder refuses.
	Local bool
	// Dir is what a relative caFile is relative to.
	Dir string
	// CheckCA, if set, is asked about each caFile; its error follows the path.
	CheckCA func(path string) error
}

// Decode fills the optional fields of s with what m says, and with defaults
// where it says nothing or something wrong, which m's document reports.
func (d Decoder) Decode(m strictyaml.Map, s *lb.Service) {
	d.policies(m, s)
	s.HTTP = d.http(m)
	s.Protocol = lb.TCP
	if m.Enum("protocol", "tcp", "tcp", "udp") == "udp" {
		s.Protocol = lb.UDP
		refuse(m, "is only for protocol tcp", []string{"appProtocol"})
	}
}

// DecodeOver is Decode for a service whose Protocol, HTTP.Protocol and timeouts
// are known already, from a port mapping and what refers to it: s has them,
// and the keys for them are errors that end in by, as "label connectd.ports".
func (d Decoder) DecodeOver(m strictyaml.Map, s *lb.Service, by string) {
	d.policies(m, s)
	refuse(m, "is said by "+by, givenKeys)
	if s.HTTP == nil {
		d.forwarding(m, &lb.HTTP{}, false)
		return
	}
	s.HTTP = d.forwarding(m, s.HTTP, true)
}

// policies decodes what is no matter of protocols.
func (d Decoder) policies(m strictyaml.Map, s *lb.Service) {
	s.LoadBalancing = balancing(m.Map("loadBalancing", balanceKeys...))
	s.Drain = drain(m.Map("drain", drainKeys...))
	s.Outlier = outlier(m.Map("outlier", outlierKeys...))
	s.HealthCheck = d.healthCheck(m.Map("healthCheck", checkKeys...))
}

// Parse decodes a JSON object with only the keys of Keys. The service has no
// name, aliases or endpoints. name stands for the text in errors, which are
// strictyaml.Errors without lines. It allows what the zero Decoder does, and
// at most strictyaml.MaxJSON bytes.
func Parse(name string, text []byte) (*lb.Service, error) {
	doc, err := strictyaml.ParseJSON(name, text)
	if err != nil {
		return nil, err
	}
	s := new(lb.Service)
	Decoder{}.Decode(doc.Root().Map(settingKeys...), s)
	if err := doc.Err(); err != nil {
		return nil, err
	}
	return s, nil
}
