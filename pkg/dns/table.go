package dns

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"connectd/pkg/plan"
)

// buckets of the name table, a power of two: at 20,000 names five names share
// one. A change of names copies the bucket headers (96 KiB, some 10 us) and
// the buckets it touches.
const buckets = 4096

// table maps names to addresses. It is immutable.
type table struct {
	seed    maphash.Seed
	buckets [buckets][]entry
}

// entry is one name of one service. Services of a namespace may share a name
// (not its ports); each has an entry then.
type entry struct {
	hash      uint64
	namespace string
	name      *plan.Name // also says whose entry it is: it points into that service's Names
}

// match is what a name leads to within a scope.
type match struct {
	v4, v6    netip.Addr
	namespace string
	name      *plan.Name
}

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

// lookup finds name in the first of namespaces that has it.
func (t *table) lookup(name []byte, namespaces []string) (m match, ok bool) {
	h := maphash.Bytes(t.seed, name)
	best := len(namespaces)
	bucket := t.buckets[h%buckets]
	for i := range bucket {
		e := &bucket[i]
		if e.hash != h || e.name.DNSName != string(name) {
			continue
		}
		rank := slices.Index(namespaces, e.namespace)
		if rank < 0 || rank > best {
			continue
		}
		if rank < best {
			best, m = rank, match{namespace: e.namespace, name: e.name}
		}
		// Services that share a name share its addresses, but one of them may
		// lack a family.
		if !m.v4.IsValid() {
			m.v4 = e.name.V4
		}
		if !m.v6.IsValid() {
			m.v6 = e.name.V6
		}
	}
	return m, m.name != nil
}

// anywhere finds name in whichever namespace has it, the first by name.
func (t *table) anywhere(name []byte) (m match, ok bool) {
	h := maphash.Bytes(t.seed, name)
	bucket := t.buckets[h%buckets]
	for i := range bucket {
		e := &bucket[i]
		if e.hash == h && e.name.DNSName == string(name) && (!ok || e.namespace < m.namespace) {
			m, ok = match{namespace: e.namespace, name: e.name}, true
		}
	}
	return m, ok
}

// names calls visit for every entry, in no order.
func (t *table) names(visit func(namespace, name string)) {
	for _, bucket := range t.buckets {
		for i := range bucket {
			visit(bucket[i].namespace, bucket[i].name.DNSName)
		}
	}
}

// update returns the table for next, given that t is the one for prev; both
// lists are sorted by service name. It returns t itself when no name changed,
// and else shares every untouched bucket with it.
func (t *table) update(prev, next []*plan.Service) *table {
	e := edit{t: t}
	i, j := 0, 0
	for i < len(prev) || j < len(next) {
		switch {
		case i == len(prev):
			e.add(next[j])
			j++
			continue
		case j == len(next):
			e.remove(prev[i])
			i++
			continue
		case prev[i] == next[j] || sameNames(prev[i], next[j]):
			i, j = i+1, j+1
			continue
		}
		c := prev[i].Name.Compare(next[j].Name)
		if c <= 0 {
			e.remove(prev[i])
			i++
		}
		if c >= 0 {
			e.add(next[j])
			j++
		}
	}
	return e.t
}

// sameNames reports whether two plans of a service share their list of names.
func sameNames(a, b *plan.Service) bool {
	return len(a.Names) == len(b.Names) && a.Name == b.Name && (len(a.Names) == 0 || &a.Names[0] == &b.Names[0])
}

// edit is a change of a table in progress; it copies what it touches once.
type edit struct {
	t     *table
	begun bool
	owned [buckets]bool
}

func (e *edit) bucket(i uint64) *[]entry {
	if !e.begun {
		t := *e.t
		e.t, e.begun = &t, true
	}
	b := &e.t.buckets[i]
	if !e.owned[i] {
		*b = append(make([]entry, 0, len(*b)+1), *b...)
		e.owned[i] = true
	}
	return b
}

func (e *edit) add(s *plan.Service) {
	for i := range s.Names {
		n := &s.Names[i]
		h := maphash.String(e.t.seed, n.DNSName)
		b := e.bucket(h % buckets)
		*b = append(*b, entry{hash: h, namespace: s.Name.Namespace, name: n})
	}
}

func (e *edit) remove(s *plan.Service) {
	for i := range s.Names {
		n := &s.Names[i]
		b := e.bucket(maphash.String(e.t.seed, n.DNSName) % buckets)
		*b = slices.DeleteFunc(*b, func(x entry) bool { return x.name == n })
	}
}
