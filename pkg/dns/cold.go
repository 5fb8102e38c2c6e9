package dns

import (
	"bytes"
	"context"
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
)

// coldWait bounds how long a query may wait for a name that a source has yet to
// look up: less than the 5 s after which resolvers ask again.
const coldWait = 2500 * time.Millisecond

// cold returns what Params.Wait is to be called with, if the source may know
// the name that is asked for and has not looked yet. Names that are answered
// are noted too.
func (s *Seat) cold(msg []byte, m match, o outcome) (names []string) {
	if s.r.params.Demand == nil {
		return nil
	}
	v := s.view()
	if o != forwarded {
		if m.name != nil {
			s.r.params.Demand(m.name.DNSName, v.scope.namespaces)
		}
		return nil
	}
	var q question
	if len(msg) < headerSize || msg[2]&(bitQR|maskOpcode) != 0 || !q.parse(msg) || q.class != mdns.ClassINET || q.hidden {
		return nil
	}
	ask := func(name []byte) {
		if s.r.params.Demand(string(name), v.scope.namespaces) {
			names = append(names, string(name))
		}
	}
	ask(q.name())
	for _, suffix := range v.scope.suffixes {
		if short, ends := strip(q.name(), suffix); ends {
			ask(short)
		}
	}
	return names
}

func (s *Seat) await(names []string) {
	ctx, cancel := context.WithTimeout(s.ctx, coldWait)
	defer cancel()
	namespaces := s.view().scope.namespaces
	for _, name := range names {
		s.r.params.Wait(ctx, name, namespaces)
	}
}

// later answers a query once the source has looked, or passes it on then.
func (v *server) later(query []byte, client netip.AddrPort, names []string) {
	s := v.seat
	if !s.admit() {
		return
	}
	query = bytes.Clone(query)
	s.wg.Go(func() {
		defer s.done()
		s.await(names)
		answer, o, _ := s.decide(query, nil)
		if o == forwarded {
			v.relay(query, client)
		} else if answer != nil {
			v.reply(answer, client)
		}
	})
}
