package cloudmap

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"connectd/pkg/catalog"
	"connectd/pkg/lb"
)

// claim is an instance's hold on an address and port.
type claim struct {
	origin *origin
	node   string
	task   string
	id     string
	since  int64
}

// newer says that a was registered after b.
func (a claim) newer(b claim) bool {
	return cmp.Or(cmp.Compare(a.since, b.since), strings.Compare(a.id, b.id)) > 0
}

// claim enters the addresses of an origin's instances, unclaim takes them out.
// Services with which one is shared are built again.
func (s *Source) claim(o *origin) {
	for i := range o.list {
		in := &o.list[i]
		for _, at := range in.addrPorts() {
			s.touch(s.addresses[at])
			s.addresses[at] = append(s.addresses[at], claim{o, in.Node, in.Task, in.ID, in.Since})
		}
	}
}

func (s *Source) unclaim(o *origin) {
	for i := range o.list {
		for _, at := range o.list[i].addrPorts() {
			left := slices.DeleteFunc(s.addresses[at], func(c claim) bool { return c.origin == o && c.id == o.list[i].ID })
			if s.touch(left); len(left) == 0 {
				delete(s.addresses, at)
			} else {
				s.addresses[at] = left
			}
		}
	}
}

func (s *Source) touch(claims []claim) {
	for _, c := range claims {
		s.dirty[c.origin.service] = struct{}{}
	}
}

// superseded says that the address belongs to somebody else by now: addresses
// of network interfaces are used again, and whoever registered last is there.
// One task may have several services on one port.
func (s *Source) superseded(o *origin, in *instance, at netip.AddrPort) bool {
	if s.registrar.holds(at) && in.Node != s.p.Node {
		return true
	}
	if in.Node == "" {
		return false
	}
	own := claim{o, in.Node, in.Task, in.ID, in.Since}
	for _, c := range s.addresses[at] {
		if c.node != "" && (c.task != in.Task || c.task == "") && c.newer(own) {
			return true
		}
	}
	return false
}

// publish builds what changed, and says whether Snapshot has something new.
func (s *Source) publish() bool {
	changed := false
	for sv := range s.dirty {
		next, own := s.build(sv)
		if s.setOwn(sv.fullName(), own) {
			changed = true
		}
		if sv.built != nil && next != nil && catalog.Equal(sv.built, next) {
			continue
		}
		if next != sv.built {
			sv.built, changed = next, true
		}
	}
	clear(s.dirty)
	confirmed := s.confirmed
	s.confirmed = false
	if !changed {
		return confirmed
	}
	s.revision++
	services := make([]*lb.Service, 0, len(s.services)+1)
	for _, sp := range s.spaces {
		for _, sv := range sp.services {
			if sv.built != nil {
				services = append(services, sv.built)
			}
		}
	}
	slices.SortFunc(services, func(a, b *lb.Service) int { return a.Name.Compare(b.Name) })
	s.services = services
	return true
}

// build makes a service of what is known; nil if nothing is, or nobody here
// asks for it.
// own are this node's endpoints, which another source lists, as they count
// beside those of ECS; nil where nothing divides the two.
func (s *Source) build(sv *service) (built *lb.Service, own []lb.Endpoint) {
	if sv.demand.IsZero() || !sv.ours.known && (sv.theirs == nil || !sv.theirs.known) {
		return nil, nil
	}
	m := &mix{s: s, sv: sv, ports: map[netip.AddrPort]bool{}, newest: -1}
	for _, o := range s.registrar.byService[sv.fullName()] {
		m.addLocal(o)
	}
	slices.SortFunc(m.ours, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	m.own = len(m.ours)
	m.addOrigin(sv.ours)
	if sv.theirs != nil {
		m.addOrigin(sv.theirs)
	}
	return m.finish()
}

// Own lists endpoints of this node that local callers are to choose by other
// weights, or as a last resort, since their service is divided between ECS and
// connectd. The lists must not be written to; revision grows with every change
// of them and of Snapshot.
func (s *Source) Own() (list map[lb.ServiceName][]lb.Endpoint, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own, s.revision
}

// setOwn says whether that is new. Readers keep the map that they have.
func (s *Source) setOwn(name lb.ServiceName, own []lb.Endpoint) bool {
	if slices.Equal(s.own[name], own) {
		return false
	}
	next := maps.Clone(s.own)
	if next == nil {
		next = map[lb.ServiceName][]lb.Endpoint{}
	}
	if next[name] = own; own == nil {
		delete(next, name)
	}
	s.own = next
	return true
}

// mix puts the endpoints of a service together.
type mix struct {
	s            *Source
	sv           *service
	ports        map[netip.AddrPort]bool // taken
	ours, theirs []lb.Endpoint
	own          int // of ours, the first ones: this node's
	aliases      []lb.ClientAlias
	newest       int64 // Since of the instance whose settings count
	settings     *lb.Service
	udp          bool
	share        int
	shared       bool // share is set
}

// addLocal takes what this node serves into account: not to list it, but for
// what settings and weights it makes. One that is not ready counts nowhere.
func (m *mix) addLocal(o *Offer) {
	m.alias(o.Service.ClientAliases)
	if o.State == Pending {
		return
	}
	since := m.s.registrar.since(m.sv.fullName(), o.ID, m.s.p.Now())
	if since > m.newest {
		m.newest, m.settings, m.udp = since, o.Service, o.Service.Protocol == lb.UDP
		if m.shared = o.Share != nil; m.shared {
			m.share = *o.Share
		}
	}
	for _, a := range []netip.Addr{o.V4, o.V6} {
		at := netip.AddrPortFrom(a, o.Port)
		if a.IsValid() && !m.ports[at] {
			m.ports[at] = true
			m.ours = append(m.ours, lb.Endpoint{Address: at, Weight: max(1, o.Weight), Draining: o.State == Draining || m.s.registrar.away})
		}
	}
}

func (m *mix) addOrigin(o *origin) {
	delete(o.odd, reasonDuplicate)
	delete(o.odd, reasonBadSettings)
	byAge := make([]*instance, 0, len(o.list))
	for i := range o.list {
		byAge = append(byAge, &o.list[i])
	}
	slices.SortFunc(byAge, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(b.Since, a.Since), strings.Compare(b.ID, a.ID))
	})
	for _, in := range byAge {
		if in.Node == m.s.p.Node {
			continue // local, or about to be deregistered
		}
		m.add(o, in)
	}
	if !o.ours && len(o.list) > 0 {
		m.alias(m.sv.space.connect.aliases[m.sv.name])
	}
}

func (m *mix) add(o *origin, in *instance) {
	used := false
	for _, at := range in.addrPorts() {
		if m.ports[at] || m.s.superseded(o, in, at) {
			o.odd[reasonDuplicate]++
			continue
		}
		used = true
		m.ports[at] = true
		d, draining := in.declared()
		e := lb.Endpoint{Address: at, Zone: cmp.Or(in.Zone, m.s.zoneIDs[in.ZoneName]), Weight: in.Weight, Declared: d, Draining: draining,
			Owner: lb.NewOwner(in.ECSService, in.Cluster)}
		if in.Node != "" {
			m.ours = append(m.ours, e)
		} else {
			m.theirs = append(m.theirs, e)
		}
	}
	if !used || in.Node == "" {
		return
	}
	m.alias(in.Aliases)
	if in.Since <= m.newest {
		return
	}
	settings, err := m.sv.decode(in.Settings)
	if err != nil {
		o.odd[reasonBadSettings]++
		settings = defaults()
	}
	m.newest, m.settings, m.udp = in.Since, settings, in.UDP
	m.share, m.shared = in.Share, in.Share >= 0
}

// maxParsed bounds the settings remembered for a service: a deployment has two
// at a time.
const maxParsed = 8

func (sv *service) decode(text string) (*lb.Service, error) {
	if have := sv.parsed[text]; have != nil {
		return have, nil
	}
	settings, err := decodeSettings(text)
	if err != nil {
		return nil, err
	}
	if len(sv.parsed) >= maxParsed {
		clear(sv.parsed)
	}
	sv.parsed[text] = settings
	return settings, nil
}

func (m *mix) alias(list []lb.ClientAlias) {
	for _, a := range list {
		if len(m.aliases) < maxAliases && !slices.Contains(m.aliases, a) {
			m.aliases = append(m.aliases, a)
		}
	}
}

func (m *mix) finish() (built *lb.Service, own []lb.Endpoint) {
	settings := m.settings
	if settings == nil {
		settings = defaults()
	}
	out := *settings
	out.Name, out.Protocol = m.sv.fullName(), lb.TCP
	if m.udp {
		out.Protocol, out.HTTP = lb.UDP, nil
	}
	if m.divide() && m.own > 0 {
		own = slices.Clone(m.ours[:m.own])
	}
	out.Endpoints = append(m.ours[m.own:], m.theirs...)
	slices.SortFunc(out.Endpoints, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	out.ClientAliases = m.names(out.Endpoints)
	return &out, own
}

// maxPorts bounds the ports that a name without aliases gets from its
// instances.
const maxPorts = 4

// names are the client aliases: those of instances, or else the discoveryName
// on the instances' own ports, or else what was known last.
func (m *mix) names(endpoints []lb.Endpoint) []lb.ClientAlias {
	list := m.aliases
	if len(list) == 0 && len(endpoints) > 0 && checkDNSName(m.sv.name) {
		for _, e := range endpoints {
			a := lb.ClientAlias{DNSName: m.sv.name, Port: e.Address.Port()}
			if len(list) < maxPorts && !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	if len(list) == 0 {
		return m.sv.last
	}
	slices.SortFunc(list, func(a, b lb.ClientAlias) int {
		return cmp.Or(strings.Compare(a.DNSName, b.DNSName), cmp.Compare(a.Port, b.Port))
	})
	m.sv.last = list
	return list
}

// divide gives each origin its share of new connections, while there are both.
func (m *mix) divide() (divided bool) {
	if percent, ok := m.sv.space.weights[m.sv.name]; ok {
		m.share, m.shared = percent, true
	}
	if m.s.p.Weights != nil {
		if percent, ok := m.s.p.Weights(m.sv.fullName()); ok {
			m.share, m.shared = percent, true
		}
	}
	if !m.shared || len(m.ours) == 0 || len(m.theirs) == 0 {
		return false
	}
	divideShares(min(max(m.share, 0), 100), m.ours, m.theirs)
	return true
}

// find returns the instance of an id in a sorted list.
func find(list []instance, id string) (in *instance, found bool) {
	i, found := slices.BinarySearchFunc(list, id, func(in instance, id string) int { return strings.Compare(in.ID, id) })
	if !found {
		return nil, false
	}
	return &list[i], true
}
