package plan

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestVIPVectors pins the hash. If it fails, VIPs would move with an upgrade:
// mend the code, never the vectors.
func TestVIPVectors(t *testing.T) {
	for _, v := range []struct{ namespace, name, v4, v6 string }{
		{"prod", "orders", "127.254.11.69", "fd63:6f6e:6e65:6374:124d:c16e:9f96:b6ce"},
		{"prod", "orders.prod", "127.254.229.184", "fd63:6f6e:6e65:6374:93b7:e7c8:7585:c5e2"},
		{"dev", "orders", "127.254.29.70", "fd63:6f6e:6e65:6374:beb3:df24:f839:eb9b"},
		{"prod", "cache", "127.254.122.82", "fd63:6f6e:6e65:6374:5df3:1cbc:e338:73ef"},
		{"", "", "127.254.120.116", "fd63:6f6e:6e65:6374:b903:4ad3:7056:f5fb"},
	} {
		table, err := newVIPTable(netip.Prefix{}, netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		key, entry := nameKey{v.namespace, v.name}, vip{}
		table.give4(key, &entry)
		table.give6(key, &entry)
		if v4, v6 := table.addr4(&entry).String(), table.addr6(&entry).String(); v4 != v.v4 || v6 != v.v6 {
			t.Errorf("{%q, %q, %q, %q}, want %s and %s", v.namespace, v.name, v4, v6, v.v4, v.v6)
		}
	}
}

func TestTaskHashKeyVectors(t *testing.T) {
	for name, want := range map[string]uint32{"web": 2092770729, "cron": 1628763751} {
		if got := taskHashKey(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
}

// TestVIPRangeFills gives every address of a small range once, and none of
// those that are reserved.
func TestVIPRangeFills(t *testing.T) {
	prefix := netip.MustParsePrefix("10.1.2.64/26")
	table, err := newVIPTable(prefix, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.Addr]bool)
	for i := range 64 - 1 - reserved {
		v := &vip{}
		if !table.give4(nameKey{"prod", fmt.Sprint("name-", i)}, v) {
			t.Fatalf("address %d is not given", i)
		}
		addr := table.addr4(v)
		last := addr.As4()[3]
		if seen[addr] || !prefix.Contains(addr) || last == 64 || last > 127-reserved {
			t.Errorf("%s is given twice or reserved", addr)
		}
		seen[addr] = true
	}
	if table.give4(nameKey{"prod", "one more"}, &vip{}) {
		t.Error("a full range gives an address")
	}
}

func TestVIPCollisionProbes(t *testing.T) {
	table, err := newVIPTable(netip.Prefix{}, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := &vip{}, &vip{}
	key := nameKey{"prod", "orders"}
	table.give4(key, a)
	table.give6(key, a)
	table.give4(key, b)
	table.give6(key, b)
	if b.host4 != a.host4+1 || b.host6 != a.host6+1 {
		t.Errorf("second name got %s and %s after %s and %s", table.addr4(b), table.addr6(b), table.addr4(a), table.addr6(a))
	}
}

func TestVIPPrefixes(t *testing.T) {
	for _, c := range []struct {
		v4, v6 string
		ok     bool
	}{
		{"127.254.0.0/16", "fd63::/64", true},
		{"10.0.0.0/27", "fd63::/64", true},
		{"10.0.0.0/8", "fd63::/64", true},
		{"10.0.0.0/28", "fd63::/64", false},
		{"10.0.0.0/7", "fd63::/64", false},
		{"fd00::/16", "fd63::/64", false},
		{"127.254.0.0/16", "fd63::/48", false},
		{"127.254.0.0/16", "10.0.0.0/24", false},
	} {
		_, err := New(Config{VIP4: netip.MustParsePrefix(c.v4), VIP6: netip.MustParsePrefix(c.v6)}, nil)
		if (err == nil) != c.ok {
			t.Errorf("%s and %s: %v", c.v4, c.v6, err)
		}
	}
}
