package catalog

import (
	"fmt"
	"iter"
	"slices"

	"connectd/pkg/lb"
)

// Index is a set of services in which every name, and every dnsName and port
// of a namespace, is held by one. It is not safe for concurrent use.
type Index struct {
	names   map[lb.ServiceName]Entry
	aliases map[aliasKey]lb.ServiceName
	sorted  []*lb.Service // never changed in place: it is handed out
}

// aliasKey is what a client calls: the port is unique per name whatever the
// protocol, as in Service Connect.
type aliasKey struct {
	namespace, dnsName string
	port               uint16
}

// NewIndex returns an empty Index.
func NewIndex() *Index {
	return &Index{names: map[lb.ServiceName]Entry{}, aliases: map[aliasKey]lb.ServiceName{}}
}

// Services returns the services sorted by name. It is the same slice until
// Replace changes one of them.
func (x *Index) Services() []*lb.Service { return x.sorted }

// Lookup returns the entry of a name.
func (x *Index) Lookup(name lb.ServiceName) (Entry, bool) {
	e, ok := x.names[name]
	return e, ok
}

// Replace takes the entries out, which must be in the index, and puts in
// others. If any of these conflicts with another or with one that stays, it
// changes nothing and returns every conflict.
func (x *Index) Replace(out, in []Entry) []*Conflict {
	for _, e := range out {
		x.drop(e)
	}
	var conflicts []*Conflict
	var added []Entry
	for _, e := range in {
		if c := x.conflict(e); c != nil {
			conflicts = append(conflicts, c)
			continue
		}
		x.add(e)
		added = append(added, e)
	}
	if conflicts != nil {
		for _, e := range added {
			x.drop(e)
		}
		for _, e := range out {
			x.add(e)
		}
		return conflicts
	}
	x.sorted = resort(x.sorted, out, in)
	return nil
}

func (x *Index) conflict(e Entry) *Conflict {
	if holder, ok := x.names[e.Service.Name]; ok {
		return &Conflict{e, holder, -1, e.Service.Name.String()}
	}
	for i, key := range aliasKeys(e.Service) {
		if name, ok := x.aliases[key]; ok {
			return &Conflict{e, x.names[name], i, fmt.Sprintf("%s:%d in %s", key.dnsName, key.port, key.namespace)}
		}
	}
	return nil
}

func (x *Index) add(e Entry) {
	x.names[e.Service.Name] = e
	for _, key := range aliasKeys(e.Service) {
		x.aliases[key] = e.Service.Name
	}
}

func (x *Index) drop(e Entry) {
	delete(x.names, e.Service.Name)
	for _, key := range aliasKeys(e.Service) {
		delete(x.aliases, key)
	}
}

// aliasKeys yields what clients may call: each alias, and the
// discoveryName.namespace that always resolves with the port of each;
// the number is the alias's.
func aliasKeys(s *lb.Service) iter.Seq2[int, aliasKey] {
	return func(yield func(int, aliasKey) bool) {
		fqdn := s.Name.FQDN()
		for i, a := range s.ClientAliases {
			if !yield(i, aliasKey{s.Name.Namespace, a.DNSName, a.Port}) {
				return
			}
			if a.DNSName != fqdn && !yield(i, aliasKey{s.Name.Namespace, fqdn, a.Port}) {
				return
			}
		}
	}
}

// resort returns sorted without the services of out and with those of in. It
// is linear in sorted, and sorted itself if nothing changed.
func resort(sorted []*lb.Service, out, in []Entry) []*lb.Service {
	gone := make(map[*lb.Service]bool, len(out))
	for _, e := range out {
		gone[e.Service] = true
	}
	var fresh []*lb.Service
	for _, e := range in {
		if gone[e.Service] {
			delete(gone, e.Service)
		} else {
			fresh = append(fresh, e.Service)
		}
	}
	if len(gone) == 0 && len(fresh) == 0 {
		return sorted
	}
	slices.SortFunc(fresh, compare)
	merged := make([]*lb.Service, 0, len(sorted)-len(gone)+len(fresh))
	for _, s := range sorted {
		if gone[s] {
			continue
		}
		for len(fresh) > 0 && compare(fresh[0], s) < 0 {
			merged = append(merged, fresh[0])
			fresh = fresh[1:]
		}
		merged = append(merged, s)
	}
	return append(merged, fresh...)
}

func compare(a, b *lb.Service) int { return a.Name.Compare(b.Name) }
