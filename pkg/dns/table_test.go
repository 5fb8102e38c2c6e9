package dns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"connectd/pkg/plan"
)

// Services that share a name share its addresses; each family comes from any.
func TestSharedNames(t *testing.T) {
	a := service("prod", "a", name4("db", "127.254.0.1"))
	b := service("prod", "b", name46("db", "127.254.0.1", "fd00::1"))
	c := service("other", "c", name46("db", "127.254.0.9", "fd00::9"))
	d := service("zeta", "d", name46("db", "127.254.0.8", "fd00::8"))
	all := []*plan.Service{c, a, b, d}
	full := newTable().update(nil, all)
	check := func(in *table, namespaces []string, v4, v6 string) {
		t.Helper()
		m, ok := in.lookup([]byte("db"), namespaces)
		if got := fmt.Sprintf("%v %v", m.v4, m.v6); got != v4+" "+v6 || ok == (v4 == "invalid IP") {
			t.Errorf("in %v: %s, want %s %s", namespaces, got, v4, v6)
		}
	}
	check(full, []string{"prod", "other"}, "127.254.0.1", "fd00::1")
	check(full, []string{"other", "prod"}, "127.254.0.9", "fd00::9")
	without := full.update(all, []*plan.Service{c, a, d})
	check(without, []string{"prod", "other"}, "127.254.0.1", "invalid IP")
	check(without, []string{"prod", "zeta"}, "127.254.0.1", "invalid IP")
	check(full, []string{"prod"}, "127.254.0.1", "fd00::1") // the old one is immutable
	check(without.update([]*plan.Service{c, a, d}, []*plan.Service{c}), []string{"prod"}, "invalid IP", "invalid IP")
}

// Any sequence of updates leads to the table that is built at once, and no
// update changes the one before.
func TestUpdateEqualsBuild(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var prev []*plan.Service
	table := newTable()
	for step := range 300 {
		var next []*plan.Service
		for i := range 20 {
			at := slices.IndexFunc(prev, func(s *plan.Service) bool { return s.Name.DiscoveryName == fmt.Sprintf("s%02d", i) })
			switch k := rnd.IntN(10); {
			case at >= 0 && k < 5:
				next = append(next, prev[at])
			case at >= 0 && k < 7: // new endpoints, same names
				s := *prev[at]
				next = append(next, &s)
			case k < 9:
				names := []plan.Name{name4(fmt.Sprintf("n%d", rnd.IntN(10)), fmt.Sprintf("127.254.0.%d", rnd.IntN(5)+1)), name4("x", "127.254.9.9")}
				next = append(next, service("prod", fmt.Sprintf("s%02d", i), names...))
			}
		}
		old := contents(table)
		updated := table.update(prev, next)
		if got, want := contents(updated), contents(newTable().update(nil, next)); !slices.Equal(got, want) {
			t.Fatalf("step %d: %v, want %v", step, got, want)
		}
		if !slices.Equal(contents(table), old) {
			t.Fatalf("step %d changed the table before", step)
		}
		prev, table = next, updated
	}
}

func contents(t *table) []string {
	var all []string
	for i, b := range t.buckets {
		for _, e := range b {
			if e.hash%buckets != uint64(i) {
				panic("entry in the wrong bucket")
			}
			all = append(all, fmt.Sprint(e.namespace, " ", e.name.DNSName, " ", e.name.V4))
		}
	}
	slices.Sort(all)
	return all
}

func TestUnchangedNamesKeepTheTable(t *testing.T) {
	d := testPlan()
	table := newTable().update(nil, d.Services)
	next := slices.Clone(d.Services)
	s := *next[2]
	s.Endpoints = []plan.Endpoint{{}}
	next[2] = &s
	if table.update(d.Services, next) != table {
		t.Error("a change of endpoints made a new table")
	}
}

// catalog makes n services of two names each.
func catalog(n int) *plan.Desired {
	d := &plan.Desired{Tasks: []*plan.Task{testTask()}}
	for i := range n {
		v4 := netip.AddrFrom4([4]byte{127, 254, byte(i >> 8), byte(i)})
		name := fmt.Sprintf("service-%05d", i)
		d.Services = append(d.Services, service("prod", name, plan.Name{DNSName: name, V4: v4}, plan.Name{DNSName: name + ".prod", V4: v4}))
	}
	return d
}

func BenchmarkPublish(b *testing.B) {
	d := catalog(10_000)
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			(&state{table: newTable()}).next(d)
		}
	})
	st := (&state{table: newTable()}).next(d)
	endpoints := *d
	endpoints.Services = slices.Clone(d.Services)
	s := *d.Services[5000]
	endpoints.Services[5000] = &s
	names := *d
	names.Services = slices.Clone(d.Services)
	names.Services[5000] = service("prod", "service-05000", name4("renamed", "127.254.0.1"))
	for name, next := range map[string]*plan.Desired{"endpoints of one": &endpoints, "names of one": &names} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				st.next(next)
			}
		})
	}
	b.Run("memory", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		st := (&state{table: newTable()}).next(d)
		runtime.GC()
		runtime.ReadMemStats(&after)
		for b.Loop() {
			runtime.KeepAlive(st)
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1024, "KiB")
	})
}

func BenchmarkLookup(b *testing.B) {
	table := newTable().update(nil, catalog(10_000).Services)
	names := make([][]byte, 1024)
	for i := range names {
		names[i] = fmt.Appendf(nil, "service-%05d.prod", i*9)
	}
	scope := []string{"shared", "prod"}
	i := 0
	for b.Loop() {
		if _, ok := table.lookup(names[i%len(names)], scope); !ok {
			b.Fatal("not found")
		}
		i++
	}
}
