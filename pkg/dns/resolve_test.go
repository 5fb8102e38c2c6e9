package dns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestResolve(t *testing.T) {
	r, err := New(Params{Log: quiet(), PortFile: filepath.Join(t.TempDir(), "ports")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Publish(testPlan())
	for name, want := range map[string]string{
		"Orders.":             "127.254.0.1 invalid IP: name of namespace prod",
		"cache":               "127.254.1.1 invalid IP: name of namespace shared",
		"both":                "127.254.0.3 fd00::3: name of namespace prod",
		"orders.corp.example": "127.254.0.1 invalid IP: name orders of namespace prod, by search domain corp.example",
		"full.corp.example":   "127.254.1.2 invalid IP: name of namespace shared",
		"vault":               "not found: name of namespace secret, which is outside the task's scope (prod, shared)",
		"example.org":         "not found: not a service's name: passed on to the task's own resolver",
	} {
		res := r.Resolve(name, 7)
		got := fmt.Sprintf("%v %v: %s", res.V4, res.V6, res.Reason)
		if !res.Found {
			got = "not found: " + res.Reason
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if res := r.Resolve("orders", 99); res.Found || res.Reason != "no task 99 is known" {
		t.Errorf("unknown task: %+v", res)
	}
}

func TestReadResolvConf(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		text      string
		resolvers []string
		search    []string
	}{
		"usual":         {"# made by hand\nsearch corp.example Example.\nnameserver 10.0.0.2\noptions ndots:5\n", []string{"10.0.0.2"}, []string{"corp.example", "example"}},
		"empty":         {"", []string{"127.0.0.1"}, nil},
		"no address":    {"nameserver dns.example\n", []string{"127.0.0.1"}, nil},
		"four":          {"nameserver 10.0.0.1\nnameserver x\nnameserver fd00:ec2::253\nnameserver ::ffff:10.0.0.3\nnameserver 10.0.0.4\n", []string{"10.0.0.1", "fd00:ec2::253", "10.0.0.3"}, nil},
		"zone":          {"nameserver fe80::1%eth0", []string{"fe80::1%eth0"}, nil},
		"last wins":     {"search a b\ndomain c\nnameserver 10.0.0.2\n", []string{"10.0.0.2"}, []string{"c"}},
		"search is dot": {"nameserver 10.0.0.2\nsearch .\n", []string{"10.0.0.2"}, nil},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		resolvers, search, err := ReadResolvConf(path)
		if err != nil {
			t.Fatal(err)
		}
		var want []netip.Addr
		for _, s := range test.resolvers {
			want = append(want, netip.MustParseAddr(s))
		}
		if !slices.Equal(resolvers, want) || !slices.Equal(search, test.search) {
			t.Errorf("%s: %v %v, want %v %v", name, resolvers, search, want, test.search)
		}
	}
	if resolvers, _, err := ReadResolvConf(filepath.Join(dir, "missing")); err != nil || len(resolvers) != 1 {
		t.Errorf("missing file: %v, %v", resolvers, err)
	}
	if _, _, err := ReadResolvConf(dir); err == nil {
		t.Error("a directory is no error")
	}
}
