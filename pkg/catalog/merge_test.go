package catalog

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"connectd/pkg/lb"
)

// listed makes a service: aliases such as "orders:80", endpoints such as
// "10.0.0.1:80".
func listed(name string, aliases string, endpoints ...string) *lb.Service {
	namespace, discovery, _ := strings.Cut(name, "/")
	s := &lb.Service{Name: lb.ServiceName{Namespace: namespace, DiscoveryName: discovery}, Protocol: lb.TCP}
	for _, a := range strings.Fields(aliases) {
		ap := strings.Split(a, ":")
		s.ClientAliases = append(s.ClientAliases, lb.ClientAlias{DNSName: ap[0], Port: map[string]uint16{"80": 80, "81": 81}[ap[1]]})
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, lb.Endpoint{Address: netip.MustParseAddrPort(e), Weight: 1, Task: "task of " + e})
	}
	return s
}

func spoken(s *lb.Service, protocol lb.AppProtocol) *lb.Service {
	s.HTTP = &lb.HTTP{Protocol: protocol}
	return s
}

// show is "name [aliases] endpoints" of each service.
func show(services []*lb.Service) string {
	var out []string
	for _, s := range services {
		var words []string
		for _, a := range s.ClientAliases {
			words = append(words, a.DNSName)
		}
		line := s.Name.DiscoveryName + " [" + strings.Join(words, " ") + "]"
		for _, e := range s.Endpoints {
			line += " " + e.Address.String()
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func reasons(clashes []Clash) string {
	var out []string
	for _, c := range clashes {
		out = append(out, c.Service.DiscoveryName+" "+c.Reason+" "+c.Task)
	}
	return strings.Join(out, "; ")
}

func TestMerge(t *testing.T) {
	file := func(s ...*lb.Service) Listing { return Listing{"file", s, true} }
	tasks := func(s ...*lb.Service) Listing { return Listing{"tasks", s, false} }
	for name, test := range map[string]struct {
		in            []Listing
		want, clashes string
	}{
		"nothing": {nil, "", ""},
		"a file alone": {
			[]Listing{file(listed("p/a", "a:80", "10.0.0.1:1")), tasks()}, "a [a] 10.0.0.1:1", ""},
		"parts of one service": {
			[]Listing{file(), tasks(listed("p/a", "a:80", "10.0.0.2:1"), listed("p/a", "a:80 b:80", "10.0.0.1:1"))},
			"a [a b] 10.0.0.1:1 10.0.0.2:1", ""},
		"file and tasks": {
			[]Listing{file(listed("p/a", "a:80", "10.0.0.9:1"), listed("p/b", "")), tasks(listed("p/a", "x:80", "10.0.0.1:1"), listed("p/c", "c:80"))},
			"a [a x] 10.0.0.1:1 10.0.0.9:1; b []; c [c]", ""},
		"an alias is the file's": {
			[]Listing{file(listed("p/z", "a:80", "10.0.0.9:1")), tasks(listed("p/a", "a:80 a:81", "10.0.0.1:1"))},
			"a [a] 10.0.0.1:1; z [a] 10.0.0.9:1", "a alias_taken task of 10.0.0.1:1"},
		"the same alias in another namespace": {
			[]Listing{tasks(listed("p/a", "a:80"), listed("q/b", "a:80"))}, "a [a]; b [a]", ""},
		"the name of another with its namespace": {
			[]Listing{file(listed("p/a", "a:80")), tasks(listed("p/b", "a.p:80", "10.0.0.1:1"))},
			"a [a]; b [] 10.0.0.1:1", "b alias_taken task of 10.0.0.1:1"},
		"another protocol": {
			[]Listing{tasks(spoken(listed("p/a", "a:80", "10.0.0.1:1"), lb.AppHTTP), listed("p/a", "a:80", "10.0.0.2:1"))},
			"a [a] 10.0.0.1:1", "a protocol_differs task of 10.0.0.2:1"},
		"an address twice": {
			[]Listing{tasks(listed("p/a", "a:80", "10.0.0.1:1"), listed("p/a", "a:80", "10.0.0.1:1"))},
			"a [a] 10.0.0.1:1", "a address_twice task of 10.0.0.1:1"},
	} {
		services, clashes := NewMerger().Merge(test.in)
		if got := show(services); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if got := reasons(clashes); got != test.clashes {
			t.Errorf("%s: clashes %q, want %q", name, got, test.clashes)
		}
	}
}

// TestMergeNewcomer: who comes later takes neither alias nor protocol away,
// whatever the order of names, and has them when the holder has gone.
func TestMergeNewcomer(t *testing.T) {
	m := NewMerger()
	old := spoken(listed("p/m", "x:80", "10.0.0.1:1"), lb.AppHTTP)
	m.Merge([]Listing{{"tasks", []*lb.Service{old}, false}})
	first, same := listed("p/a", "x:80", "10.0.0.2:1"), listed("p/m", "x:80", "10.0.0.3:1")
	services, clashes := m.Merge([]Listing{{"tasks", []*lb.Service{first, same, old}, false}})
	if got := show(services); got != "a [] 10.0.0.2:1; m [x] 10.0.0.1:1" {
		t.Error(got)
	}
	if got := reasons(clashes); got != "a alias_taken task of 10.0.0.2:1; m protocol_differs task of 10.0.0.3:1" {
		t.Error(got)
	}
	if services[1].HTTP == nil {
		t.Error("the newcomer set the protocol")
	}
	if services, clashes = m.Merge([]Listing{{"tasks", []*lb.Service{first}, false}}); show(services) != "a [x] 10.0.0.2:1" || clashes != nil {
		t.Error(show(services), reasons(clashes))
	}
}

// TestMergePointers: what did not change is the same pointer and slice.
func TestMergePointers(t *testing.T) {
	m := NewMerger()
	alone, one, two := listed("p/z", "z:80", "10.0.0.9:1"), listed("p/a", "a:80", "10.0.0.1:1"), listed("p/a", "a:80", "10.0.0.2:1")
	merge := func(parts ...*lb.Service) []*lb.Service {
		s, _ := m.Merge([]Listing{{"file", []*lb.Service{alone}, true}, {"tasks", parts, false}})
		return slices.Clone(s)
	}
	before := merge(one, two)
	if before[1] != alone {
		t.Error("a service of one part is not that part")
	}
	if after := merge(one, two); after[0] != before[0] {
		t.Error("the same parts made another service")
	}
	again := *two
	if after := merge(one, &again); after[0] != before[0] {
		t.Error("an equal part made another service")
	}
	if after := merge(one); after[0] != one {
		t.Error("what is left of a service is not the part that is left")
	}
}
