package control

import (
	"errors"
	"strings"
	"testing"

	"connectd/pkg/lb"
)

func TestFind(t *testing.T) {
	known := []lb.ServiceName{{Namespace: "prod", DiscoveryName: "cache"}, {Namespace: "prod", DiscoveryName: "db"},
		{Namespace: "prod", DiscoveryName: "orders"}, {Namespace: "prod", DiscoveryName: "orders-db"}, {Namespace: "tools", DiscoveryName: "orders"}}
	for _, tt := range []struct{ arg, want, err string }{
		{"cache", "prod/cache", ""},
		{"prod/orders", "prod/orders", ""},
		{"tools/orders", "tools/orders", ""},
		{"orders", "", "service orders is ambiguous: say prod/orders or tools/orders"},
		{"orders-db", "prod/orders-db", ""},
		{"odrers", "", "no service odrers; did you mean prod/orders or tools/orders?"},
		{"dc", "", "no service dc; did you mean prod/db?"},
		{"order", "", "no service order; did you mean prod/orders, tools/orders or prod/orders-db?"},
		{"tools/cache", "", "no service tools/cache; did you mean prod/cache?"},
		{"payments", "", "no service payments; connectd services lists them"},
		{"/", "", "no service /; connectd services lists them"},
		{"Cache", "", "no service Cache; did you mean prod/cache?"},
	} {
		got, err := find(known, tt.arg)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("find %q: got error %v, want %s", tt.arg, err, tt.err)
			}
		} else if err != nil || got.String() != tt.want {
			t.Errorf("find %q: got %s, %v, want %s", tt.arg, got, err, tt.want)
		}
	}
	_, err := find(nil, "cache")
	if err == nil || err.Error() != "no service cache: the catalog has none" {
		t.Errorf("in an empty catalog: %v", err)
	}
}

func TestSuggestionsAreFew(t *testing.T) {
	var known []lb.ServiceName
	for c := 'a'; c <= 'z'; c++ {
		known = append(known, lb.ServiceName{Namespace: "prod", DiscoveryName: "orders-" + string(c)})
	}
	_, err := find(known, "orders")
	if e, ok := errors.AsType[*Error](err); !ok || strings.Count(e.Message, "prod/") != maxListed {
		t.Errorf("got %v, want %d suggestions", err, maxListed)
	}
}
