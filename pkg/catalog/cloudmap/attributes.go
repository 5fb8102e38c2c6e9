package cloudmap

import (
	"net/netip"
	"slices"
	"strconv"

	sdtypes "github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"connectd/pkg/lb"
)

// Keys of an instance's attributes. Those of AWS have the names that ECS gives
// them; ours begin with connectd.
const (
	attrIPv4     = "AWS_INSTANCE_IPV4"
	attrIPv6     = "AWS_INSTANCE_IPV6"
	attrPort     = "AWS_INSTANCE_PORT"
	attrZoneName = "AVAILABILITY_ZONE"
	attrCluster  = "ECS_CLUSTER_NAME"
	attrService  = "ECS_SERVICE_NAME"
	attrFamily   = "ECS_TASK_DEFINITION_FAMILY"
	attrNode     = "connectd.node"
	attrTask     = "connectd.task"
	attrZone     = "connectd.zone"     // availability zone id
	attrState    = "connectd.state"    // healthy, unhealthy or draining
	attrWeight   = "connectd.weight"   // absent: 1
	attrShare    = "connectd.share"    // percent of the service's connections that connectd's endpoints take; absent: by weight
	attrAliases  = "connectd.aliases"  // dnsName:port,...
	attrProtocol = "connectd.protocol" // udp; absent: tcp
	attrSettings = "connectd.settings" // JSON of the service's optional fields
	attrSince    = "connectd.since"    // when it was registered first, unix milliseconds
	attrSequence = "connectd.sequence" // grows with every change of its node, see indexEntry
)

// maxInstances is the most that one DiscoverInstances answers, and the most
// that a service can have.
const maxInstances = 1000

// Words of attrState.
const (
	stateHealthy   = "healthy"
	stateUnhealthy = "unhealthy"
	stateDraining  = "draining"
)

// maxNumber bounds counters and times: what JSON readers and JavaScript
// consoles show exactly.
const maxNumber = 1 << 53

// instance is one instance of a Cloud Map service, decoded.
type instance struct {
	ID       string     `json:"id"`
	V4       netip.Addr `json:"v4,omitzero"`
	V6       netip.Addr `json:"v6,omitzero"`
	Port     uint16     `json:"port"`
	ZoneName string     `json:"zoneName,omitzero"`
	Zone     string     `json:"zone,omitzero"` // zone id
	State    string     `json:"state"`
	Weight   uint16     `json:"weight"`

	// Who serves it, of instances that were read: what this node writes has its
	// own in publication.
	ECSService string `json:"ecsService,omitzero"`
	Cluster    string `json:"cluster,omitzero"`

	// The following are of instances that a connectd registered.
	Node     string           `json:"node,omitzero"`
	Task     string           `json:"task,omitzero"`
	Share    int              `json:"share"` // percent, -1 is none
	Aliases  []lb.ClientAlias `json:"aliases,omitzero"`
	UDP      bool             `json:"udp,omitzero"`
	Settings string           `json:"settings,omitzero"`
	Since    int64            `json:"since,omitzero"` // unix milliseconds
	Sequence uint64           `json:"sequence,omitzero"`
}

// Reasons for which an instance does not count, or counts in part. They are
// labels of a metric.
const (
	reasonNoPort       = "missing_port"
	reasonNoAddress    = "missing_address"
	reasonBadAddress   = "bad_address"
	reasonBadAttribute = "bad_attribute"
	reasonBadSettings  = "bad_settings" // used, with the default settings
	reasonDuplicate    = "duplicate_address"
	reasonTooMany      = "too_many"  // counted once: the answer had no room for more
	reasonIPv6Only     = "ipv6_only" // used: an IPv4 VIP does not lead to it
)

// reader takes numbers out of attributes and notes whether any is bad.
type reader struct {
	attrs map[string]string
	bad   bool
}

func (r *reader) number(key string, low, high, absent uint64) uint64 {
	text, ok := r.attrs[key]
	if !ok {
		return absent
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < low || n > high {
		r.bad = true
		return absent
	}
	return n
}

// decodeInstance decodes what DiscoverInstances says of an instance. A reason
// says why it does not count; it still names itself and its node then.
func decodeInstance(id string, attrs map[string]string, health sdtypes.HealthStatus) (in instance, reason string) {
	r := reader{attrs: attrs}
	in = instance{
		ID: id, Node: attrs[attrNode], Task: attrs[attrTask], Zone: attrs[attrZone], ZoneName: attrs[attrZoneName],
		ECSService: attrs[attrService], Cluster: attrs[attrCluster],
		Settings: attrs[attrSettings], Share: -1, UDP: attrs[attrProtocol] == lb.UDP.String(), State: stateHealthy,
		Weight:   uint16(r.number(attrWeight, 1, lb.MaxWeight, 1)),
		Since:    int64(r.number(attrSince, 0, maxNumber, 0)),
		Sequence: r.number(attrSequence, 0, maxNumber, 0),
	}
	if health == sdtypes.HealthStatusUnhealthy {
		in.State = stateUnhealthy
	}
	if _, ok := attrs[attrShare]; ok {
		in.Share = int(r.number(attrShare, 0, 100, 100))
	}
	if state, ok := attrs[attrState]; ok {
		in.State = state
	}
	in.Aliases, r.bad = orBad(r.bad)(parseAliases(attrs[attrAliases], ":"))
	if r.bad || !slices.Contains([]string{stateHealthy, stateUnhealthy, stateDraining}, in.State) || !checkZone(in.Zone) {
		return in, reasonBadAttribute
	}
	if in.V4, in.V6, reason = addresses(attrs); reason != "" {
		return in, reason
	}
	if attrs[attrPort] == "" {
		return in, reasonNoPort
	}
	if in.Port = uint16(r.number(attrPort, 1, 65535, 0)); r.bad {
		return in, reasonBadAttribute
	}
	return in, ""
}

func orBad(bad bool) func([]lb.ClientAlias, error) ([]lb.ClientAlias, bool) {
	return func(a []lb.ClientAlias, err error) ([]lb.ClientAlias, bool) { return a, bad || err != nil }
}

func addresses(attrs map[string]string) (v4, v6 netip.Addr, reason string) {
	read := func(key string, right func(netip.Addr) bool) netip.Addr {
		text := attrs[key]
		if text == "" {
			return netip.Addr{}
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !right(a) || a.Zone() != "" || !usable(a) {
			reason = reasonBadAddress
			return netip.Addr{}
		}
		return a
	}
	v4 = read(attrIPv4, netip.Addr.Is4)
	v6 = read(attrIPv6, func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() })
	if reason == "" && !v4.IsValid() && !v6.IsValid() {
		reason = reasonNoAddress
	}
	return v4, v6, reason
}

// usable leaves out what no server has.
func usable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// encode returns the attributes that decodeInstance reads back, and an error
// if Cloud Map would not take them as they are: nothing is ever cut.
func (in *instance) encode(cluster, service, family string) (map[string]string, error) {
	attrs := map[string]string{
		attrPort: strconv.Itoa(int(in.Port)), attrNode: in.Node, attrState: in.State,
		attrSince: strconv.FormatInt(in.Since, 10), attrSequence: strconv.FormatUint(in.Sequence, 10),
	}
	set := func(key, value string) {
		if value != "" {
			attrs[key] = value
		}
	}
	if in.V4.IsValid() {
		attrs[attrIPv4] = in.V4.String()
	}
	if in.V6.IsValid() {
		attrs[attrIPv6] = in.V6.String()
	}
	set(attrZoneName, in.ZoneName)
	set(attrZone, in.Zone)
	set(attrCluster, cluster)
	set(attrService, service)
	set(attrFamily, family)
	set(attrTask, in.Task)
	set(attrAliases, formatAliases(in.Aliases, ":"))
	set(attrSettings, in.Settings)
	if in.UDP {
		attrs[attrProtocol] = lb.UDP.String()
	}
	if in.Weight > 1 {
		attrs[attrWeight] = strconv.Itoa(int(in.Weight))
	}
	if in.Share >= 0 {
		attrs[attrShare] = strconv.Itoa(in.Share)
	}
	return attrs, checkAttributes(attrs)
}

// declared is what its own side says of an instance.
func (in *instance) declared() (d lb.Declared, draining bool) {
	switch in.State {
	case stateDraining:
		return lb.DeclaredHealthy, true
	case stateUnhealthy:
		return lb.DeclaredUnhealthy, false
	}
	return lb.DeclaredHealthy, false
}

// addrPorts returns where the instance is reached, IPv4 first.
func (in *instance) addrPorts() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range []netip.Addr{in.V4, in.V6} {
		if a.IsValid() {
			out = append(out, netip.AddrPortFrom(a, in.Port))
		}
	}
	return out
}
