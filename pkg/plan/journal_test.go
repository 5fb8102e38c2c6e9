package plan

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectd/pkg/lb"
)

const journalSample = `namespace 1 "prod"
service 1 "prod" "orders" 6 1 probed terminate 30s 0
endpoint 1 1 10.0.0.1:80
endpoint 2 1 10.0.0.2:80
endpoint 3 1 [fd00::3]:80
task 1 "web"
ready 1
task 2 "api"
ready 2
verdict 1 healthy healthy ""
verdict 2 unhealthy healthy "status 503"
drain 2 2026-01-02T03:04:25.5Z
drain 1 -
eject 1 1 2 2026-01-02T03:04:25Z
eject 1 0 1 2026-01-02T03:04:25Z http
eject 2 0 1 2026-01-02T03:04:25Z http
eject 2 0 2 2026-01-02T03:04:35Z
gone endpoint 3 2026-01-02T03:04:15Z
free endpoint 3
gone task 1 2026-01-02T03:04:15Z
vip "prod" "orders" 127.254.11.69
vip "prod" "orders" fd63:6f6e:6e65:6374::7
vip "prod" "orders.prod" 127.254.0.9
vip-gone "prod" "orders.prod"
operator-drain "prod" "orders" 10.0.0.1:80
operator-undrain "prod" "orders" 10.0.0.1:80
clock 2026-01-02T03:04:05Z
`

func TestJournalReads(t *testing.T) {
	p := mustNew(t, Config{}, []byte(journalSample))
	want := `clock 2026-01-02T03:04:05Z
namespace 1 "prod"
service 1 "prod" "orders" 6 1 probed terminate 30s 0
endpoint 1 1 10.0.0.1:80
verdict 1 healthy healthy ""
endpoint 2 1 10.0.0.2:80
verdict 2 unhealthy healthy "status 503"
drain 2 2026-01-02T03:04:25.5Z
task 2 "api"
ready 2
eject 1 1 2 2026-01-02T03:04:25Z
eject 1 0 1 2026-01-02T03:04:25Z http
eject 2 0 2 2026-01-02T03:04:35Z
vip "prod" "orders" 127.254.11.69
vip "prod" "orders" fd63:6f6e:6e65:6374::7
gone task 1 2026-01-02T03:04:15Z
`
	if got := string(p.Snapshot()); got != want {
		t.Errorf("snapshot\n%s\nwant\n%s", got, want)
	}
}

func TestJournalGarbage(t *testing.T) {
	for _, line := range []string{
		"nonsense", "", "endpoint", "endpoint 0 1 10.0.0.9:80", "endpoint 9 2 10.0.0.9:80", "endpoint 1 1 10.0.0.9:80",
		"endpoint 9 1 10.0.0.9", "endpoint 99999999999 1 10.0.0.9:80", "endpoint 9 1 10.0.0.9:80 more",
		`service 2 "prod" orders 6 1 probed terminate 30s 0`, `service 2 "prod" "x" 6 1 perhaps terminate 30s 0`,
		`service 2 "prod" "x" 6 1 probed terminate soon 0`, `service 2 "prod" "x" 6 1 probed terminate 30s 12`,
		`service 1 "prod" "other" 6 1 probed terminate 30s 0`, `namespace 1 "dev"`, `namespace 257 "dev"`, `task 1 web`, "ready 1", "ready 3", "ready 2 soon",
		`verdict 9 healthy healthy ""`, `verdict 1 fine healthy ""`, `verdict 1 healthy healthy`,
		"drain 1 tomorrow", "clock noon", "drain 9 -", "eject 1 1 1", "eject 1 1 1 - tcp", "eject 1 1 1 - http http", "gone endpoint", "gone planet 3 -", "free planet 3",
		`vip "prod" "x" here`, `operator-drain "prod" "x" 10.0.0.1`, "\x00\x00\x00",
	} {
		_, err := New(Config{}, []byte(journalSample+line+"\n"+"task 3 \"after\"\n"))
		where := fmt.Sprintf("read plan journal: line %d: ", strings.Count(journalSample, "\n")+1)
		if err == nil || !strings.HasPrefix(err.Error(), where) {
			t.Errorf("%q: error %v, want %q...", line, err, where)
		}
	}
}

// TestJournalContradictions are found when all is read.
func TestJournalContradictions(t *testing.T) {
	for _, text := range []string{
		"service 1 \"prod\" \"x\" 6 1 probed leave 0s 0\n",
		"namespace 1 \"prod\"\nservice 1 \"prod\" \"x\" 6 1 probed leave 0s 0\nservice 2 \"prod\" \"x\" 6 1 probed leave 0s 0\n",
	} {
		if _, err := New(Config{}, []byte(text)); err == nil {
			t.Errorf("accepted:\n%s", text)
		}
	}
}

// TestJournalTornAnywhere cuts the journal at each byte, as a crash may: what
// is left must be readable and must plan.
func TestJournalTornAnywhere(t *testing.T) {
	catalog := parseCatalog(t, "prod/a alias=a:80 terminate=9s\n 10.0.0.1:80\n 10.0.0.2:80 draining\nprod/b alias=a:81 policy=sourceHash\n [fd00::1]:80\n")
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(catalog)
	p.SetTasks([]lb.Task{{Name: "web"}})
	journal := p.Step(epoch).Journal
	p.SetCatalog(catalog[1:])
	journal = append(journal[:len(journal):len(journal)], p.Step(epoch).Journal...)
	for n := range journal {
		p, err := New(Config{}, journal[:n])
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		p.SetCatalog(catalog)
		p.SetTasks([]lb.Task{{Name: "web"}})
		if d := p.Step(epoch); len(d.Services) != 2 || len(d.Services[0].Endpoints) != 2 || len(d.Problems) > 0 {
			t.Fatalf("cut at %d:\n%s", n, text(d))
		}
	}
}

// TestLoweredBounds: ids above a bound that was lowered are given anew.
func TestLoweredBounds(t *testing.T) {
	catalog := bigCatalog(10, lb.RoundRobin)
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(catalog)
	p.Step(epoch)
	p = mustNew(t, Config{MaxServices: 5, MaxEndpoints: 30}, p.Snapshot())
	p.SetCatalog(catalog)
	d := p.Step(epoch)
	if len(d.Services) != 5 || len(d.Problems) != 7 {
		t.Errorf("%d services, problems %q", len(d.Services), d.Problems)
	}
	for _, s := range d.Services {
		for _, e := range s.Endpoints {
			if e.ID > 30 {
				t.Errorf("endpoint id %d", e.ID)
			}
		}
	}
}

// TestNamespacesRunOut: a task's scope has 256 bits.
func TestNamespacesRunOut(t *testing.T) {
	var catalog []*lb.Service
	for i := range lb.MaxNamespaces + 2 {
		catalog = append(catalog, &lb.Service{Name: lb.ServiceName{Namespace: fmt.Sprintf("ns-%03d", i), DiscoveryName: "x"}})
	}
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(catalog)
	p.SetTasks([]lb.Task{{Name: "web", Namespaces: []string{"ns-000", "ns-255", "ns-256"}}})
	d := p.Step(epoch)
	if len(d.Services) != lb.MaxNamespaces || len(d.Problems) != 2 || d.Services[255].NamespaceID != 255 {
		t.Errorf("%d services, problems %q", len(d.Services), d.Problems)
	}
	if scope := d.Tasks[0].Scope; scope[0] != 1 || scope[3] != 1<<63 {
		t.Errorf("scope %x", scope)
	}
	p.SetCatalog(catalog[1:])
	p.Step(epoch)
	if d = p.Step(epoch.Add(quarantine)); len(d.Problems) != 1 || d.Services[255].NamespaceID != 0 || d.Tasks[0].Scope[0] != 1 {
		t.Errorf("problems %q, scope %x", d.Problems, d.Tasks[0].Scope)
	}
}

// TestClockAtRestart: a clock that was set back between two runs must not hold
// a drain or an id for the difference.
func TestClockAtRestart(t *testing.T) {
	catalog := parseCatalog(t, "prod/a alias=a:80 terminate=30s\n 10.0.0.1:80\n 10.0.0.2:80 draining\n")
	p := mustNew(t, Config{}, nil)
	p.SetCatalog(catalog)
	p.Step(epoch)
	p = mustNew(t, Config{}, p.Snapshot())
	p.SetCatalog(catalog)
	earlier := epoch.Add(-time.Hour)
	if got := p.Step(earlier).Services[0].Endpoints[1].DrainUntil; !got.Equal(earlier.Add(30 * time.Second)) {
		t.Errorf("drains until %s, now is %s", got, earlier)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(journalSample))
	f.Add([]byte("namespace 1 \"prod\"\nservice 1 \"prod\" \"h\" 6 3 unprobed leave 0s 251\nendpoint 7 1 10.0.0.1:80\n"))
	catalog := parseCatalog(f, "prod/orders alias=orders:80 check\n 10.0.0.1:80\n [fd00::3]:80\nprod/h policy=sourceHash\n 10.0.0.1:80\n 10.0.0.2:80\n")
	f.Fuzz(func(t *testing.T, journal []byte) {
		p, err := New(Config{}, journal)
		if err != nil {
			return
		}
		snapshot := p.Snapshot()
		q, err := New(Config{}, snapshot)
		if err != nil {
			t.Fatalf("read own snapshot: %v\n%s", err, snapshot)
		}
		if again := q.Snapshot(); !bytes.Equal(snapshot, again) {
			t.Fatalf("snapshot\n%s\nof a snapshot\n%s", again, snapshot)
		}
		p.SetCatalog(catalog)
		p.SetTasks([]lb.Task{{Name: "web", Namespaces: []string{"prod"}}})
		if d := p.Step(epoch); len(d.Services) < 2 {
			t.Fatalf("%s", text(d))
		}
	})
}
