package plan

import (
	"cmp"
	"fmt"
	"slices"

	"connectd/pkg/lb"
)

// Address families of a service's names. They are sticky: an address that was
// published stays while the service exists.
const (
	family4 uint8 = 1 << iota
	family6
)

// wantedNames lists the names of a service and their ports, without
// addresses: each alias, and discoveryName.namespace with the ports of all.
func wantedNames(s *lb.Service) []Name {
	out := make([]Name, 0, len(s.ClientAliases)+1)
	all := make([]uint16, 0, max(1, len(s.ClientAliases)))
	for _, a := range s.ClientAliases {
		all = append(all, a.Port)
	}
	if len(all) == 0 {
		for _, e := range s.Endpoints {
			if !slices.Contains(all, e.Address.Port()) {
				all = append(all, e.Address.Port())
			}
		}
	}
	for i, a := range s.ClientAliases {
		out = append(out, Name{DNSName: a.DNSName, Ports: all[i : i+1 : i+1]})
	}
	if len(all) > 1 {
		all = sortedSet(slices.Clone(all))
	}
	out = append(out, Name{DNSName: s.Name.FQDN(), Ports: all})
	slices.SortStableFunc(out, func(a, b Name) int { return cmp.Compare(a.DNSName, b.DNSName) })
	kept := out[:1]
	for _, n := range out[1:] {
		if last := &kept[len(kept)-1]; last.DNSName == n.DNSName {
			last.Ports = sortedSet(slices.Concat(last.Ports, n.Ports))
		} else {
			kept = append(kept, n)
		}
	}
	return slices.Clip(kept)
}

func sortedSet(ports []uint16) []uint16 {
	slices.Sort(ports)
	return slices.Compact(ports)
}

// families adds those of the endpoints to the ones the service had. A service
// that never had an endpoint is IPv4.
func families(had uint8, endpoints []lb.Endpoint) uint8 {
	for i := range endpoints {
		if endpoints[i].Address.Addr().Is4() {
			had |= family4
		} else {
			had |= family6
		}
	}
	if had == 0 {
		return family4
	}
	return had
}

// nameServices gives the dirty services their names. Claims are moved first,
// then what nobody claims is dropped, then newcomers get their addresses in
// sorted order: a name that goes from one service to another keeps its VIP.
func (p *Planner) nameServices() {
	s := &p.scratch
	s.freed, s.claimed = s.freed[:0], s.claimed[:0]
	if p.restoring {
		for key, v := range p.vips.names {
			if len(v.users) == 0 { // from the journal
				s.freed = append(s.freed, key)
			}
		}
	}
	before := len(p.dirty)
	for _, r := range p.dirty {
		p.claimNames(r)
	}
	slices.SortFunc(s.freed, compareKeys)
	for _, key := range slices.Compact(s.freed) {
		if v := p.vips.names[key]; v != nil && len(v.users) == 0 {
			p.vips.drop(key)
			p.log("vip-gone").quote(key.namespace).quote(key.dnsName).end()
		}
	}
	slices.SortFunc(s.claimed, compareKeys)
	for _, key := range slices.Compact(s.claimed) {
		p.giveVIPs(key)
	}
	for _, r := range p.dirty {
		if r.renamed {
			r.renamed = false
			p.addressNames(r)
		}
	}
	if len(p.dirty) != before {
		slices.SortFunc(p.dirty, compareRecords)
	}
}

// claimNames exchanges the names a service had for those it wants now.
func (p *Planner) claimNames(r *service) {
	var want []Name
	spec := r.spec
	if !r.listed || r.id == 0 {
		spec = nil
	}
	if spec == r.named && r.nameProblem == "" {
		return
	}
	if spec != nil {
		want = wantedNames(spec)
		r.traits.families = families(r.traits.families, spec.Endpoints)
	}
	for _, n := range r.names {
		if !hasName(want, n.DNSName) {
			p.unclaim(r, nameKey{r.name.Namespace, n.DNSName})
		}
	}
	for _, n := range want {
		p.claim(r, nameKey{r.name.Namespace, n.DNSName})
	}
	r.named = spec
	r.wanted = want
	r.renamed = true
}

func hasName(names []Name, dnsName string) bool {
	_, ok := slices.BinarySearchFunc(names, dnsName, func(n Name, d string) int { return cmp.Compare(n.DNSName, d) })
	return ok
}

func (p *Planner) claim(r *service, key nameKey) {
	v := p.vips.names[key]
	if v == nil {
		v = &vip{}
		p.vips.names[key] = v
	}
	if !slices.Contains(v.users, r) {
		v.users = append(v.users, r)
	}
	p.scratch.claimed = append(p.scratch.claimed, key)
	p.renameOthers(r, v)
}

func (p *Planner) unclaim(r *service, key nameKey) {
	v := p.vips.names[key]
	if v == nil {
		return
	}
	v.users = slices.DeleteFunc(v.users, func(u *service) bool { return u == r })
	p.scratch.freed = append(p.scratch.freed, key)
	p.renameOthers(r, v)
}

// renameOthers has the other users of a name look again which ports are
// theirs.
func (p *Planner) renameOthers(r *service, v *vip) {
	for _, u := range v.users {
		if u != r && u.named != nil {
			u.renamed = true
			if u.wanted == nil {
				u.wanted = wantedNames(u.named)
			}
			p.touch(u)
		}
	}
}

// giveVIPs gives a claimed name the addresses it lacks.
func (p *Planner) giveVIPs(key nameKey) {
	v := p.vips.names[key]
	var need uint8
	for _, u := range v.users {
		need |= u.traits.families
	}
	if need&family4 != 0 && v.host4 == 0 && p.vips.give4(key, v) {
		p.log("vip").quote(key.namespace).quote(key.dnsName).addr(p.vips.addr4(v)).end()
	}
	if need&family6 != 0 && v.host6 == 0 {
		p.vips.give6(key, v)
		p.log("vip").quote(key.namespace).quote(key.dnsName).addr(p.vips.addr6(v)).end()
	}
}

// addressNames turns the wanted names into planned ones.
func (p *Planner) addressNames(r *service) {
	names := r.wanted
	r.wanted = nil
	r.nameProblem = ""
	for i := range names {
		n := &names[i]
		v := p.vips.names[nameKey{r.name.Namespace, n.DNSName}]
		if len(v.users) > 1 {
			n.Ports = p.ownPorts(r, n, v)
		}
		if r.traits.families&family4 != 0 {
			if n.V4 = p.vips.addr4(v); !n.V4.IsValid() {
				r.nameProblem = fmt.Sprintf("name %s has no IPv4 address: the VIP range is full", n.DNSName)
			}
		}
		if r.traits.families&family6 != 0 {
			n.V6 = p.vips.addr6(v)
		}
	}
	if !slices.EqualFunc(r.names, names, equalNames) {
		r.names = names
	}
}

// ownPorts drops the ports of a shared name that an older service has. Sources
// reject such a catalog; should one come through, two services must not take
// turns on one frontend.
func (p *Planner) ownPorts(r *service, n *Name, v *vip) []uint16 {
	older := slices.DeleteFunc(slices.Clone(v.users), func(u *service) bool {
		return u.id >= r.id || u.spec.Protocol != r.spec.Protocol
	})
	slices.SortFunc(older, func(a, b *service) int { return cmp.Compare(a.id, b.id) })
	return slices.DeleteFunc(slices.Clone(n.Ports), func(port uint16) bool {
		i := slices.IndexFunc(older, func(u *service) bool {
			return slices.ContainsFunc(wantedNames(u.spec), func(m Name) bool {
				return m.DNSName == n.DNSName && slices.Contains(m.Ports, port)
			})
		})
		if i >= 0 {
			r.nameProblem = fmt.Sprintf("%s:%d belongs to %s", n.DNSName, port, older[i].name)
		}
		return i >= 0
	})
}

func equalNames(a, b Name) bool {
	return a.DNSName == b.DNSName && a.V4 == b.V4 && a.V6 == b.V6 && slices.Equal(a.Ports, b.Ports)
}

func compareKeys(a, b nameKey) int {
	return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.dnsName, b.dnsName))
}
