package daemon

import (
	"slices"

	"connectd/pkg/datapath"
	"connectd/pkg/lb"
	"connectd/pkg/metrics"
	"connectd/pkg/plan"
)

// maxCallerTotals bounds what is kept of ECS services and services they call.
const maxCallerTotals = 4096

// callerLedger adds up, by ECS service, what the kernel counts by task: tasks
// come and go, their ids are given to others and the kernel forgets whom it has
// not seen for long, while what is added up only grows. One goroutine uses it.
type callerLedger struct {
	owners map[lb.TaskID]lb.Owner // of every task seen, the latest
	marks  map[datapath.Caller]*callerMark
	totals map[ownedCall]*callerTotal
	began  bool
}

type ownedCall struct {
	service lb.ServiceID
	owner   lb.Owner
}

// callerTotal is what the tasks of an ECS service have had of a service.
type callerTotal struct {
	bytes uint64
	http  metrics.HTTPStats // in mode direct
	grown bool              // in the latest reading
}

// callerMark is a task's counts as they were read last.
type callerMark struct {
	ended, bytes uint64
	http         []uint64 // classes, the histogram, its sum
	seen         bool     // in the latest reading
}

// callerReading is what the kernel has of tasks.
type callerReading struct {
	ended map[datapath.Caller]datapath.Bytes // of connections that have ended
	sum   map[datapath.Caller]datapath.Bytes // the same and live ones, when they were sampled last
	http  map[datapath.Caller]datapath.HTTPCounters
}

// settle books what counts have grown by since the reading before; the first
// one is where counting begins.
func (l *callerLedger) settle(p *plan.Desired, r *callerReading) {
	if l.owners == nil {
		l.owners, l.marks, l.totals = map[lb.TaskID]lb.Owner{}, map[datapath.Caller]*callerMark{}, map[ownedCall]*callerTotal{}
	}
	for _, t := range p.Tasks {
		l.owners[t.ID] = t.Owner
	}
	for _, m := range l.marks {
		m.seen = false
	}
	for _, t := range l.totals {
		t.grown = false
	}
	for c, ended := range r.ended {
		l.bytes(c, total(ended), total(r.sum[c]))
	}
	for c, sum := range r.sum {
		if _, ok := r.ended[c]; !ok {
			l.bytes(c, 0, total(sum))
		}
	}
	for c, h := range r.http {
		l.requests(c, &h)
	}
	for c, m := range l.marks {
		if !m.seen {
			delete(l.marks, c)
		}
	}
	l.began = true
}

func total(b datapath.Bytes) uint64 { return b.Sent + b.Received }

func (l *callerLedger) mark(c datapath.Caller) *callerMark {
	m := l.marks[c]
	if m == nil {
		m = &callerMark{}
		l.marks[c] = m
	}
	m.seen = true
	return m
}

// bytes books a count of which the part of ended connections only grows, unless
// it began anew. That of live ones is late and may go back a little.
func (l *callerLedger) bytes(c datapath.Caller, ended, sum uint64) {
	m := l.mark(c)
	if ended < m.ended {
		m.bytes, sum = 0, ended // the sample may be of before
	}
	now := max(ended, sum)
	grown := now - min(now, m.bytes)
	m.ended, m.bytes = ended, max(now, m.bytes)
	if grown > 0 && l.began {
		l.of(c).bytes += grown
	}
}

func (l *callerLedger) requests(c datapath.Caller, h *datapath.HTTPCounters) {
	stats := directStats(h)
	now := slices.Concat(stats.Classes, stats.Duration.Counts, []uint64{stats.Duration.SumMicroseconds})
	m := l.mark(c)
	if len(m.http) != len(now) || anyLess(now, m.http) {
		m.http = make([]uint64, len(now))
	}
	if l.began && !slices.Equal(now, m.http) {
		t := l.of(c)
		classes, times := len(stats.Classes), len(stats.Duration.Counts)
		if t.http.Classes == nil {
			t.http.Classes, t.http.Duration.Counts = make([]uint64, classes), make([]uint64, times)
		}
		for i := range classes {
			t.http.Classes[i] += now[i] - m.http[i]
		}
		for i := range times {
			t.http.Duration.Counts[i] += now[classes+i] - m.http[classes+i]
		}
		t.http.Duration.SumMicroseconds += now[classes+times] - m.http[classes+times]
	}
	m.http = now
}

func anyLess(a, b []uint64) bool {
	for i := range a {
		if a[i] < b[i] {
			return true
		}
	}
	return false
}

// of returns the total of who a task belongs to. When there is room for no
// more, those go that did not grow: they were read before.
func (l *callerLedger) of(c datapath.Caller) *callerTotal {
	k := ownedCall{c.Service, l.owners[c.Task]}
	t := l.totals[k]
	if t == nil && len(l.totals) >= maxCallerTotals {
		for k, t := range l.totals {
			if !t.grown {
				delete(l.totals, k)
			}
		}
	}
	if t == nil && len(l.totals) >= maxCallerTotals {
		k.owner = lb.Owner{} // one for each service at most
		t = l.totals[k]
	}
	if t == nil {
		t = &callerTotal{}
		l.totals[k] = t
	}
	t.grown = true
	return t
}
