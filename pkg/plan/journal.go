package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"connectd/pkg/lb"
)

// The journal is lines of fields separated by one space; strings are quoted,
// times are RFC 3339 with nanoseconds, "-" is no time. A later line replaces
// what an earlier one said of the same thing.
//
//	namespace ID "NAMESPACE"                     ID is one more than the NamespaceID
//	service ID "NAMESPACE" "NAME" PROTOCOL FAMILIES probed|unprobed terminate|leave DEADLINE TABLE
//	endpoint ID SERVICE-ID ADDRESS
//	task ID "NAME"
//	ready ID                                     all that this task serves was exposed
//	gone KIND ID UNTIL                           left Desired, rests until then
//	free KIND ID                                 may be given again
//	verdict ID VERDICT never|exposed|healthy "REASON"
//	drain ID UNTIL
//	eject ID TASK-ID TIMES UNTIL [http]          task 0 is everybody; http: for requests, not connects
//	vip "NAMESPACE" "NAME" ADDRESS
//	vip-gone "NAMESPACE" "NAME"
//	operator-drain "NAMESPACE" "SERVICE" ADDRESS
//	operator-undrain "NAMESPACE" "SERVICE" ADDRESS
//	clock NOW                                    when the lines before it were planned
const (
	kindNamespace = "namespace"
	kindService   = "service"
	kindEndpoint  = "endpoint"
	kindTask      = "task"
	kindReady     = "ready"
)

// line appends fields to the journal.
type line struct{ p *Planner }

func (p *Planner) log(verb string) line {
	p.journal = append(p.journal, verb...)
	return line{p}
}

func (l line) word(s string) line {
	l.p.journal = append(append(l.p.journal, ' '), s...)
	return l
}

func (l line) num(n uint64) line {
	l.p.journal = strconv.AppendUint(append(l.p.journal, ' '), n, 10)
	return l
}

func (l line) quote(s string) line {
	l.p.journal = strconv.AppendQuote(append(l.p.journal, ' '), s)
	return l
}

func (l line) addr(a netip.Addr) line {
	l.p.journal = a.AppendTo(append(l.p.journal, ' '))
	return l
}

func (l line) addrPort(a netip.AddrPort) line {
	l.p.journal = a.AppendTo(append(l.p.journal, ' '))
	return l
}

func (l line) time(t time.Time) line {
	if t.IsZero() {
		return l.word("-")
	}
	l.p.journal = t.UTC().AppendFormat(append(l.p.journal, ' '), time.RFC3339Nano)
	return l
}

func (l line) end() { l.p.journal = append(l.p.journal, '\n') }

func (p *Planner) logService(r *service) {
	r.logged = r.traits
	t := &r.traits
	p.log(kindService).num(uint64(r.id)).quote(r.name.Namespace).quote(r.name.DiscoveryName).
		num(uint64(t.protocol)).num(uint64(t.families)).word(choose(t.probed, "probed", "unprobed")).
		word(choose(t.terminate, "terminate", "leave")).word(t.deadline.String()).num(uint64(t.table)).end()
}

func choose(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func (p *Planner) logVerdict(id lb.EndpointID) {
	info := &p.endpoints[id]
	p.log("verdict").num(uint64(id)).word(info.verdict.String()).word(pasts[info.past]).quote(p.reasons[id]).end()
}

func (p *Planner) logEjection(id lb.EndpointID, j *ejection) {
	l := p.log("eject").num(uint64(id)).num(uint64(j.task)).num(uint64(j.times)).time(j.until)
	if j.http {
		l = l.word("http")
	}
	l.end()
}

// logDrains writes the deadlines that differ; both lists are sorted by
// address.
func (p *Planner) logDrains(before, endpoints []Endpoint) {
	for i := range endpoints {
		e := &endpoints[i]
		for len(before) > 0 && before[0].Address.Compare(e.Address) < 0 {
			before = before[1:]
		}
		var was time.Time
		if len(before) > 0 && before[0].ID == e.ID {
			was = before[0].DrainUntil
		}
		if !was.Equal(e.DrainUntil) {
			p.log("drain").num(uint64(e.ID)).time(e.DrainUntil).end()
		}
	}
}

// Snapshot returns a journal that says the same in as few lines as can be,
// including what the next Step has not yet handed out.
func (p *Planner) Snapshot() []byte {
	pending := p.journal
	defer func() { p.journal = pending }()
	p.journal = make([]byte, 0, 64*len(p.endpoints))
	p.log("clock").time(p.clock).end()
	for _, name := range slices.Sorted(maps.Keys(p.namespaces)) {
		p.log(kindNamespace).num(uint64(p.namespaces[name].id) + 1).quote(name).end()
	}
	for _, r := range p.records {
		if r.id != 0 {
			p.snapshotService(r)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.tasks)) {
		t := p.tasks[name]
		p.log(kindTask).num(uint64(t.id)).quote(name).end()
		if t.ready {
			p.log(kindReady).num(uint64(t.id)).end()
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.ejections)) {
		for i := range p.ejections[id] {
			p.logEjection(id, &p.ejections[id][i])
		}
	}
	p.snapshotNames()
	for _, ids := range []struct {
		kind string
		*pool
	}{{kindNamespace, &p.namespaceIDs}, {kindService, &p.serviceIDs}, {kindEndpoint, &p.endpointIDs}, {kindTask, &p.taskIDs}} {
		for _, h := range ids.held {
			p.log("gone").word(ids.kind).num(uint64(h.id)).time(h.until).end()
		}
	}
	return slices.Clone(p.journal)
}

func (p *Planner) snapshotService(r *service) {
	p.logService(r)
	for i := range r.endpoints {
		e := &r.endpoints[i]
		p.log(kindEndpoint).num(uint64(e.ID)).num(uint64(r.id)).addrPort(e.Address).end()
		if info := &p.endpoints[e.ID]; info.verdict != lb.VerdictUnknown || info.past != pastNever {
			p.logVerdict(e.ID)
		}
		if !e.DrainUntil.IsZero() {
			p.log("drain").num(uint64(e.ID)).time(e.DrainUntil).end()
		}
	}
}

func (p *Planner) snapshotNames() {
	for _, key := range slices.SortedFunc(maps.Keys(p.vips.names), compareKeys) {
		v := p.vips.names[key]
		for _, addr := range []netip.Addr{p.vips.addr4(v), p.vips.addr6(v)} {
			if addr.IsValid() {
				p.log("vip").quote(key.namespace).quote(key.dnsName).addr(addr).end()
			}
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(p.drains), lb.ServiceName.Compare) {
		for _, addr := range slices.SortedFunc(slices.Values(p.drains[name]), netip.AddrPort.Compare) {
			p.log("operator-drain").quote(name.Namespace).quote(name.DiscoveryName).addrPort(addr).end()
		}
	}
}
