package dns

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"

	"connectd/pkg/plan"
)

// Names outside of the task's scope are told of, as asked for and with a search
// domain; others, and those within it, are not. All go on to the resolver.
func TestRefused(t *testing.T) {
	var mu sync.Mutex
	var told []Refusal
	w := newWorld(t, func(p *Params, d *plan.Desired) {
		d.Services = append(d.Services, service("tools", "vault", name4("vault", "127.254.8.8")))
		p.Refused = func(r Refusal) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, r)
		}
	})
	newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte { return [][]byte{oddResponse(q)} })
	for _, name := range []string{"orders", "nothing", "orders.prod", "full.corp.example", "vault.other.example", "example.org"} {
		w.ask(t, pack(t, query(name, mdns.TypeA)))
	}
	mu.Lock()
	if len(told) > 0 {
		t.Errorf("told %+v", told)
	}
	mu.Unlock()
	for _, name := range []string{"vault", "VAULT.corp.example", "vault"} {
		if got := w.ask(t, pack(t, query(name, mdns.TypeAAAA))); len(got) == 0 {
			t.Errorf("%s was not passed on", name)
		}
	}
	// Of two namespaces the first by name, and once a second: all three may
	// take longer on a slow machine.
	mu.Lock()
	defer mu.Unlock()
	want := Refusal{Task: 7, Name: "vault", Namespace: "secret"}
	if len(told) == 0 || len(told) > 3 {
		t.Fatalf("told %+v", told)
	}
	for _, r := range told {
		if r != want {
			t.Errorf("told %+v, want %+v", r, want)
		}
	}
}

func TestToldIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x told
		tell := func(names int) (n int) {
			for i := range names {
				if x.first(fmt.Sprint(i), time.Now()) {
					n++
				}
			}
			return n
		}
		if n := tell(3); n != 3 {
			t.Errorf("%d of 3 names told", n)
		}
		if n := tell(3); n != 0 {
			t.Errorf("%d names told twice at once", n)
		}
		if n := tell(1000); n != maxTold-3 {
			t.Errorf("%d more of 1000 names told", n)
		}
		time.Sleep(refusalEvery)
		if n := tell(1000); n != maxTold {
			t.Errorf("%d of 1000 names told a second later", n)
		}
		if len(x.names) > maxTold {
			t.Errorf("%d names are remembered", len(x.names))
		}
	})
}
