package catalog

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"connectd/pkg/lb"
)

func entry(file string, line int, name string, aliases ...lb.ClientAlias) Entry {
	ns, d, _ := strings.Cut(name, "/")
	return Entry{Service: &lb.Service{Name: lb.ServiceName{Namespace: ns, DiscoveryName: d}, ClientAliases: aliases}, File: file, Line: line}
}

func names(x *Index) string {
	var b []string
	for _, s := range x.Services() {
		b = append(b, s.Name.String())
	}
	return strings.Join(b, " ")
}

func TestIndexKeepsOrderAndPointers(t *testing.T) {
	x := NewIndex()
	a := []Entry{entry("a", 1, "prod/m"), entry("a", 2, "prod/c"), entry("a", 3, "dev/z")}
	b := []Entry{entry("b", 1, "prod/d"), entry("b", 2, "prod/z")}
	if c := x.Replace(nil, append(a[:3:3], b...)); c != nil {
		t.Fatal(c)
	}
	if got := names(x); got != "dev/z prod/c prod/d prod/m prod/z" {
		t.Fatal(got)
	}
	before := x.Services()
	moved := []Entry{a[2], {Service: a[0].Service, File: "a", Line: 7}, a[1]}
	if c := x.Replace(a, moved); c != nil || &x.Services()[0] != &before[0] {
		t.Error("the same services at other places made a new list")
	}
	if e, _ := x.Lookup(a[0].Service.Name); e.Line != 7 {
		t.Errorf("place not renewed: %v", e.Line)
	}
	if c := x.Replace(moved, []Entry{a[0], entry("a", 9, "prod/a"), entry("a", 9, "prod/zz")}); c != nil {
		t.Fatal(c)
	}
	if got := names(x); got != "prod/a prod/d prod/m prod/z prod/zz" {
		t.Error(got)
	}
	if got := before[0].Name.String(); got != "dev/z" {
		t.Error("a list handed out was changed")
	}
	if x.Services()[2] != a[0].Service {
		t.Error("pointer of an unchanged service was lost")
	}
}

func TestIndexConflicts(t *testing.T) {
	alias := func(name string, port uint16) lb.ClientAlias { return lb.ClientAlias{DNSName: name, Port: port} }
	held := []Entry{entry("a.yaml", 3, "prod/orders", alias("orders", 80)), entry("a.yaml", 9, "prod/cache", alias("cache", 6379))}
	for _, tt := range []struct {
		name string
		in   Entry
		want string
	}{
		{"name", entry("b.yaml", 4, "prod/orders", alias("x", 80)), "b.yaml:4: services[0].discoveryName: prod/orders is taken by a.yaml:3"},
		{"alias", entry("b.yaml", 4, "prod/x", alias("orders", 80)), "b.yaml:4: services[0].clientAliases[0]: orders:80 in prod is taken by a.yaml:3"},
		{"same file", entry("a.yaml", 12, "prod/x", alias("cache", 6379)), "a.yaml:12: services[0].clientAliases[0]: cache:6379 in prod is taken on line 9"},
		{"the name that always resolves", entry("b.yaml", 4, "prod/x", alias("orders.prod", 80)), "b.yaml:4: services[0].clientAliases[0]: orders.prod:80 in prod is taken by a.yaml:3"},
		{"other port", entry("b.yaml", 4, "prod/x", alias("orders", 81)), ""},
		{"other namespace", entry("b.yaml", 4, "dev/orders", alias("orders", 80)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := NewIndex()
			if c := x.Replace(nil, held); c != nil {
				t.Fatal(c)
			}
			other := entry("b.yaml", 1, "prod/other")
			conflicts := x.Replace(nil, []Entry{other, tt.in})
			if tt.want == "" {
				if conflicts != nil {
					t.Fatal(text(conflicts[0]))
				}
				return
			}
			if len(conflicts) != 1 || text(conflicts[0]) != tt.want {
				t.Fatalf("got %v, want %s", conflicts, tt.want)
			}
			if got := names(x); got != "prod/cache prod/orders" {
				t.Errorf("a refused change left %s", got)
			}
			if c := x.Replace(held, []Entry{other, tt.in}); c != nil {
				t.Errorf("with the holder gone: %s", text(c[0]))
			}
		})
	}
}

// TestEqualSeesEveryField changes each field of a service in turn, so that a
// field added to lb.Service and forgotten in Equal fails here.
func TestEqualSeesEveryField(t *testing.T) {
	full := func() *lb.Service {
		return &lb.Service{
			ClientAliases: []lb.ClientAlias{{DNSName: "a", Port: 1}},
			HealthCheck:   &lb.HealthCheck{},
			HTTP:          &lb.HTTP{},
			Endpoints:     []lb.Endpoint{{Address: netip.MustParseAddrPort("10.0.0.1:1")}},
		}
	}
	if !Equal(full(), full()) {
		t.Fatal("equal services differ")
	}
	leaves := 0
	for i := 0; ; i++ {
		s := full()
		n := i
		path, ok := mutate(reflect.ValueOf(s).Elem(), "Service", &n)
		if !ok {
			break
		}
		leaves++
		if Equal(full(), s) {
			t.Errorf("Equal overlooks %s", path)
		}
	}
	if leaves < 36 {
		t.Errorf("only %d fields tried", leaves)
	}
	for what, drop := range map[string]func(*lb.Service){
		"health check": func(s *lb.Service) { s.HealthCheck = nil },
		"HTTP":         func(s *lb.Service) { s.HTTP = nil },
	} {
		without, again := full(), full()
		drop(without)
		drop(again)
		if Equal(full(), without) || Equal(without, full()) || !Equal(without, again) {
			t.Errorf("Equal overlooks an absent %s", what)
		}
	}
}

// mutate changes the nth leaf of v.
func mutate(v reflect.Value, path string, n *int) (string, bool) {
	switch {
	case v.Type() == reflect.TypeFor[netip.AddrPort]():
		if *n == 0 {
			v.Set(reflect.ValueOf(netip.MustParseAddrPort("[::1]:9")))
			return path, true
		}
		*n--
	case v.Type() == reflect.TypeFor[lb.Owner]():
		if *n == 0 {
			v.Set(reflect.ValueOf(lb.NewOwner("service", "cluster")))
			return path, true
		}
		*n--
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if p, ok := mutate(v.Field(i), path+"."+v.Type().Field(i).Name, n); ok {
				return p, true
			}
		}
	case v.Kind() == reflect.Pointer:
		return mutate(v.Elem(), path, n)
	case v.Kind() == reflect.Slice:
		return mutate(v.Index(0), path+"[0]", n)
	default:
		if *n == 0 {
			switch {
			case v.CanInt():
				v.SetInt(v.Int() + 1)
			case v.CanUint():
				v.SetUint(v.Uint() + 1)
			case v.Kind() == reflect.Bool:
				v.SetBool(!v.Bool())
			case v.Kind() == reflect.String:
				v.SetString(v.String() + "x")
			default:
				panic("no mutation for " + path)
			}
			return path, true
		}
		*n--
	}
	return "", false
}

func text(c *Conflict) string {
	return fmt.Sprintf("%s:%d: %s: %s", c.Entry.File, c.Entry.Line, c.Field(), c.Detail())
}
