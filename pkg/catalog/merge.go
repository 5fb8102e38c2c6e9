package catalog

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"connectd/pkg/lb"
)

// Listing is what one source lists, sorted by name. Several may have one
// name: parts of a service, such as a task each, the preferred one first.
type Listing struct {
	Source   string // "file", "tasks", "cloudmap"
	Services []*lb.Service
	Indexed  bool // they come from an Index, which has found every clash among them
}

// Clash says that a part of a service was left out, or an alias of it, since
// another holds what it claims.
type Clash struct {
	Service lb.ServiceName
	Source  string
	Task    string // local task that claims it; "" is none
	Reason  string // one of ClashReasons
	Detail  string
}

// The reasons of a Clash.
const (
	ClashAlias    = "alias_taken"      // a dnsName and port is another service's
	ClashProtocol = "protocol_differs" // parts of one service speak different protocols
	ClashAddress  = "address_twice"    // two parts have one address and port
	ClashAliases  = "too_many_aliases" // all parts together
	maxMerged     = 64                 // aliases of a merged service
)

// ClashReasons lists every reason, for metrics.
func ClashReasons() []string { return []string{ClashAlias, ClashProtocol, ClashAddress, ClashAliases} }

// Merger joins listings into one set of services. Settings are those of the
// first part in the order of the listings, endpoints and aliases are those of
// all. Who held an alias, or set the protocol of a service, keeps it as long as
// it claims it, so that a newcomer takes nothing from anybody. It is not safe
// for concurrent use.
type Merger struct {
	last    []Listing
	merged  []*lb.Service
	clashes []Clash
	known   map[lb.ServiceName]*composite
	holders map[aliasKey]lb.ServiceName
}

// composite is a service made of parts, and what it was made of.
type composite struct {
	parts   []part
	dropped []lb.ClientAlias
	service *lb.Service
	clashes []Clash
}

type part struct {
	*lb.Service
	source string
}

// NewMerger returns a Merger that has merged nothing.
func NewMerger() *Merger {
	return &Merger{known: map[lb.ServiceName]*composite{}, holders: map[aliasKey]lb.ServiceName{}}
}

// Merge returns the services sorted by name, each name once, and what clashed.
// A service whose parts are the same pointers as before is the same pointer,
// and a service of one part is that part. The results must not be written to.
func (m *Merger) Merge(listings []Listing) ([]*lb.Service, []Clash) {
	if slices.EqualFunc(m.last, listings, func(a, b Listing) bool { return a.Source == b.Source && identical(a.Services, b.Services) }) {
		return m.merged, m.clashes
	}
	m.last = slices.Clone(listings)
	filled := slices.DeleteFunc(slices.Clone(listings), func(l Listing) bool { return len(l.Services) == 0 })
	if len(filled) == 1 && filled[0].Indexed {
		m.merged, m.clashes = filled[0].Services, nil
		clear(m.known)
		clear(m.holders)
		return m.merged, m.clashes
	}
	groups := gather(filled)
	m.settle(groups)
	return m.merged, m.clashes
}

// gather brings the parts of each name together, in the order of listings.
func gather(listings []Listing) [][]part {
	var all []part
	for _, l := range listings {
		for _, s := range l.Services {
			all = append(all, part{s, l.Source})
		}
	}
	slices.SortStableFunc(all, func(a, b part) int { return a.Name.Compare(b.Name) })
	var groups [][]part
	for begin := 0; begin < len(all); {
		end := begin + 1
		for end < len(all) && all[end].Name == all[begin].Name {
			end++
		}
		groups = append(groups, all[begin:end:end])
		begin = end
	}
	return groups
}

// settle decides who holds which alias, and composes what changed.
func (m *Merger) settle(groups [][]part) {
	holders := m.grant(groups)
	known := make(map[lb.ServiceName]*composite, len(groups))
	merged, clashes := make([]*lb.Service, 0, len(groups)), []Clash(nil)
	for _, parts := range groups {
		name := parts[0].Name
		var dropped []lb.ClientAlias
		for _, p := range parts {
			for i, key := range aliasKeys(p.Service) {
				if a := p.ClientAliases[i]; holders[key] != name && !slices.Contains(dropped, a) {
					dropped = append(dropped, a)
				}
			}
		}
		c := m.known[name]
		if c == nil || !slices.Equal(c.parts, parts) || !slices.Equal(c.dropped, dropped) {
			was := (*lb.Service)(nil)
			if c != nil {
				was = c.service
			}
			c = compose(parts, dropped, was, holders)
		}
		known[name] = c
		merged = append(merged, c.service)
		clashes = append(clashes, c.clashes...)
	}
	m.known, m.holders, m.merged, m.clashes = known, holders, merged, clashes
}

// grant gives each alias to who held it, else to the first listing's claim.
func (m *Merger) grant(groups [][]part) map[aliasKey]lb.ServiceName {
	holders := make(map[aliasKey]lb.ServiceName, len(m.holders))
	claims := func(each func(aliasKey, part)) {
		for _, parts := range groups {
			for _, p := range parts {
				for _, key := range aliasKeys(p.Service) {
					each(key, p)
				}
			}
		}
	}
	claims(func(key aliasKey, p part) {
		if m.holders[key] == p.Name {
			holders[key] = p.Name
		}
	})
	for _, l := range m.last { // a file goes before tasks, whatever the names
		claims(func(key aliasKey, p part) {
			if _, taken := holders[key]; !taken && p.source == l.Source {
				holders[key] = p.Name
			}
		})
	}
	return holders
}

// compose makes one service of parts. was is what it was before, or nil.
func compose(parts []part, dropped []lb.ClientAlias, was *lb.Service, holders map[aliasKey]lb.ServiceName) *composite {
	c := &composite{parts: parts, dropped: dropped}
	if len(parts) == 1 && len(dropped) == 0 {
		c.service = parts[0].Service
		return c
	}
	first := parts[0]
	if was != nil {
		if i := slices.IndexFunc(parts, func(p part) bool { return sameProtocol(p.Service, was) }); i > 0 {
			first = parts[i]
		}
	}
	s := *first.Service
	s.ClientAliases, s.Endpoints = nil, nil
	s.Publish = slices.ContainsFunc(parts, func(p part) bool { return p.Publish })
	seen := make(map[netip.AddrPort]string)
	for _, p := range parts {
		if !sameProtocol(p.Service, first.Service) {
			c.clash(p, ClashProtocol, fmt.Sprintf("%s speaks %s, and this part of it %s", p.Name, speaks(first.Service), speaks(p.Service)))
			continue
		}
		c.addAliases(&s, p, holders)
		c.addEndpoints(&s, p, seen)
	}
	slices.SortFunc(s.Endpoints, func(a, b lb.Endpoint) int { return a.Address.Compare(b.Address) })
	c.service = &s
	if was != nil && Equal(was, &s) {
		c.service = was
	}
	return c
}

func (c *composite) addAliases(s *lb.Service, p part, holders map[aliasKey]lb.ServiceName) {
	for _, a := range p.ClientAliases {
		switch {
		case slices.Contains(s.ClientAliases, a):
		case slices.Contains(c.dropped, a):
			holder := holders[aliasKey{p.Name.Namespace, a.DNSName, a.Port}]
			c.clash(p, ClashAlias, fmt.Sprintf("%s:%d in %s is taken by %s", a.DNSName, a.Port, p.Name.Namespace, holder.DiscoveryName))
		case len(s.ClientAliases) == maxMerged:
			c.clash(p, ClashAliases, fmt.Sprintf("%s:%d is left out, %s has %d client aliases", a.DNSName, a.Port, p.Name, maxMerged))
		default:
			s.ClientAliases = append(s.ClientAliases, a)
		}
	}
}

// addEndpoints leaves out what an earlier listing has: a registry lists what
// this node's tasks have registered.
func (c *composite) addEndpoints(s *lb.Service, p part, seen map[netip.AddrPort]string) {
	for _, e := range p.Endpoints {
		if by, taken := seen[e.Address]; taken && by != p.source {
			continue
		} else if taken {
			c.clash(p, ClashAddress, fmt.Sprintf("%s has %s already", p.Name, e.Address))
			continue
		}
		seen[e.Address] = p.source
		s.Endpoints = append(s.Endpoints, e)
	}
}

func (c *composite) clash(p part, reason, detail string) {
	out := Clash{Service: p.Name, Source: p.source, Reason: reason, Detail: detail}
	if len(p.Endpoints) > 0 {
		out.Task = p.Endpoints[0].Task
	}
	c.clashes = append(c.clashes, out)
}

func sameProtocol(a, b *lb.Service) bool { return speaks(a) == speaks(b) }

func speaks(s *lb.Service) string {
	if s.HTTP == nil {
		return s.Protocol.String()
	}
	return s.HTTP.Protocol.String()
}

// identical says whether two slices are one.
func identical(a, b []*lb.Service) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// String is for logs: "prod/orders: alias_taken: ...".
func (c Clash) String() string {
	return strings.Join([]string{c.Service.String(), c.Reason, c.Detail}, ": ")
}
