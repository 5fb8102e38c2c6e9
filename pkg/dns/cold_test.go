package dns

import (
	"bufio"
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	mdns "github.com/miekg/dns"

	"connectd/pkg/plan"
)

// registry stands in for a source that looks names up when they are asked for.
type registry struct {
	mu       sync.Mutex
	cold     map[string]bool // those that it has yet to look up
	demanded []string
	found    func() // what a look brings
}

func (r *registry) demand(name string, namespaces []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.demanded = append(r.demanded, name)
	return r.cold[name] && slices.Contains(namespaces, "prod")
}

func (r *registry) wait(_ context.Context, name string, _ []string) {
	r.mu.Lock()
	known, found := !r.cold[name], r.found
	r.cold[name] = false
	r.mu.Unlock()
	if !known {
		found()
	}
}

// TestCold: the first query of a name that a source has yet to look up waits
// for that, over UDP and TCP, and is answered with what came of it; one of a
// name that the source does not know either is passed on afterwards.
func TestCold(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			reg := &registry{cold: map[string]bool{"late": true, "absent": true}}
			var base *plan.Desired
			w := newWorld(t, func(p *Params, d *plan.Desired) {
				base, p.Demand, p.Wait = d, reg.demand, reg.wait
			})
			reg.mu.Lock()
			reg.found = func() {
				next := *base
				next.Services = append(slices.Clone(base.Services), service("prod", "late", name4("late", "127.254.9.9")))
				w.Publish(&next)
			}
			reg.mu.Unlock()
			newUpstream(t, w.ns, resolver4, func(q []byte) [][]byte { return [][]byte{oddResponse(q)} })
			ask := func(name string) []byte {
				if q := pack(t, query(name, mdns.TypeA)); network == "udp" {
					return w.ask(t, q)
				} else {
					return askTCP(t, w.dial(t, network), q)
				}
			}
			var answer mdns.Msg
			if err := answer.Unpack(ask("late")); err != nil || len(answer.Answer) != 1 || answer.Answer[0].(*mdns.A).A.String() != "127.254.9.9" {
				t.Errorf("late is %v (%v)", answer.Answer, err)
			}
			if got := ask("absent.corp.example"); len(got) == 0 {
				t.Error("a name that nobody knows was not passed on")
			}
			ask("orders")
			reg.mu.Lock()
			defer reg.mu.Unlock()
			for _, name := range []string{"late", "absent.corp.example", "absent", "orders"} {
				if !slices.Contains(reg.demanded, name) {
					t.Errorf("%s was not noted: %v", name, reg.demanded)
				}
			}
			if reg.cold["absent"] {
				t.Error("the name without its search domain was not waited for")
			}
		})
	}
}

func askTCP(t *testing.T, c net.Conn, query []byte) []byte {
	t.Helper()
	defer c.Close()
	if _, err := c.Write(frame(query)); err != nil {
		t.Fatal(err)
	}
	msg, err := readMessage(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg[2:]
}
