package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"connectd/pkg/lb"
)

func TestReadyVIP(t *testing.T) {
	for cidr, want := range map[string]string{
		"127.254.0.0/16": "127.254.255.254", "10.1.2.32/27": "10.1.2.62", "10.1.2.40/27": "10.1.2.62",
		"100.64.0.0/10": "100.127.255.254", "10.0.0.0/8": "10.255.255.254",
	} {
		prefix := netip.MustParsePrefix(cidr)
		if got := ReadyVIP(prefix).String(); got != want {
			t.Errorf("in %s it is %s, want %s", cidr, got, want)
		}
		// No name gets it, however full the range.
		table, err := newVIPTable(prefix, netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		if last := table.addr4(&vip{host4: table.hosts4}); !last.Less(ReadyVIP(prefix)) {
			t.Errorf("in %s names get addresses up to %s", cidr, last)
		}
	}
	if got := ReadyVIP(netip.Prefix{}).String(); got != "127.254.255.254" {
		t.Errorf("by default it is %s", got)
	}
}

// TestReadyFrontend: it is in every plan, a difference at first and never again.
func TestReadyFrontend(t *testing.T) {
	p := mustNew(t, Config{VIP4: netip.MustParsePrefix("127.200.0.0/16")}, nil)
	first := p.Step(epoch)
	if got := first.Ready.Address.String(); got != "127.200.255.254:80" || first.Ready.Protocol != lb.TCP {
		t.Errorf("ready frontend %v", first.Ready)
	}
	if c := Diff(nil, first); c.Ready != first.Ready || c.Empty() {
		t.Errorf("not written at first: %+v", c)
	}
	p.SetCatalog(bigCatalog(1, lb.RoundRobin))
	second := p.Step(epoch)
	if c := Diff(first, second); c.Ready.Address.IsValid() {
		t.Errorf("written again: %+v", c.Ready)
	}
	if len(first.Local) != 0 || second.Ready != first.Ready {
		t.Errorf("%+v", second.Ready)
	}
}

// TestReadiness: what a task that is not ready is told, and a task that comes
// before any catalog.
func TestReadiness(t *testing.T) {
	p := mustNew(t, Config{}, nil)
	p.SetTasks([]lb.Task{{Name: "web", Namespaces: []string{"prod"}}, {Name: "idle"}})
	d := p.Step(epoch)
	if ok, detail := d.Readiness(1); ok || detail != "no catalog was read yet" {
		t.Errorf("before the catalog: %v %q", ok, detail)
	}
	var b strings.Builder
	b.WriteString("prod/a alias=a:80 check\n")
	for i := range 7 {
		fmt.Fprintf(&b, "  10.0.0.%d:80 task=web\n", i+1)
	}
	p.SetCatalog(parseCatalog(t, b.String()))
	d = p.Step(epoch)
	if ok, detail := d.Readiness(1); !ok || detail != "" {
		t.Errorf("idle, which serves nothing: %v %q", ok, detail)
	}
	ok, detail := d.Readiness(2)
	if ok || strings.Count(detail, "no probe has succeeded yet") != maxMissing || !strings.HasSuffix(detail, "; and 2 more") {
		t.Errorf("web: %v %q", ok, detail)
	}
	if ok, detail := d.Readiness(99); ok || detail == "" {
		t.Errorf("nobody: %v %q", ok, detail)
	}
	// A task that serves nothing at first and then something is ready no more.
	p.SetCatalog(parseCatalog(t, "prod/a alias=a:80\n  10.0.0.1:80 task=web\nprod/b alias=b:80\n  10.0.0.1:81 task=idle declared=pending\n"))
	d = p.Step(epoch)
	if ok, _ := d.Readiness(1); ok {
		t.Error("idle is ready with a pending endpoint")
	}
	if ok, detail := d.Readiness(2); !ok {
		t.Errorf("web: %q", detail)
	}
}
