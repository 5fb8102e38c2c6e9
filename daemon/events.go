package daemon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectd/pkg/control"
	"connectd/pkg/metrics"
)

const (
	maxEvents = 1000 // held, of some 300 bytes each
	// sameEvent is for how long a refusal or problem is counted with the one
	// before that it is like, instead of being another.
	sameEvent = time.Minute
)

// eventLog holds the latest events.
type eventLog struct {
	run string // tells its cursors from those of an earlier daemon

	mu      sync.Mutex
	ring    [maxEvents]control.Event // by Seq % maxEvents
	last    uint64                   // Seq of the newest; 0: none
	recent  map[likeness]uint64      // Seq of the latest of those that are counted
	kinds   map[control.EventKind]uint64
	changed chan struct{} // closed at the next event
}

// likeness is what events that are counted together have in common. The
// address is not: a task that tries all ports would fill the list.
type likeness struct {
	kind               control.EventKind
	task, name, reason string
}

func newEventLog() *eventLog {
	return &eventLog{
		run:     fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()),
		recent:  make(map[likeness]uint64),
		kinds:   make(map[control.EventKind]uint64),
		changed: make(chan struct{}),
	}
}

// Add takes an event, and reports whether it is another one and not counted
// with one of the last minute: then it is worth a line in the log. Seq is given
// here, and At and Times where they are zero.
func (l *eventLog) Add(e control.Event) bool {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Times = max(e.Times, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kinds[e.Kind] += e.Times
	counted := e.Kind == control.EventRefused || e.Kind == control.EventProblem
	like := likeness{e.Kind, e.Task, e.Name, e.Reason}
	if counted && l.count(like, &e) {
		return false
	}
	l.last++
	e.Seq = l.last
	l.ring[e.Seq%maxEvents] = e
	if counted {
		l.recent[like] = e.Seq
		l.forget()
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// count adds to an event of the last minute, if there is one.
func (l *eventLog) count(like likeness, e *control.Event) bool {
	seq, ok := l.recent[like]
	if !ok || l.last-seq >= maxEvents {
		return false
	}
	old := &l.ring[seq%maxEvents]
	if e.At.Sub(old.At) >= sameEvent {
		return false
	}
	old.Times += e.Times
	old.Last, old.Address, old.Detail = e.At, e.Address, e.Detail
	return true
}

// forget keeps recent at what the list holds.
func (l *eventLog) forget() {
	if len(l.recent) <= 2*maxEvents {
		return
	}
	for like, seq := range l.recent {
		if l.last-seq >= maxEvents {
			delete(l.recent, like)
		}
	}
}

// After returns the events after a cursor. One of another run is as none.
func (l *eventLog) After(cursor string) control.Events {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, missed := uint64(0), uint64(0)
	if run, seq, ok := strings.Cut(cursor, "/"); ok && run == l.run {
		from, _ = strconv.ParseUint(seq, 10, 64)
		from = min(from, l.last)
		if l.last-from > maxEvents {
			missed = l.last - from - maxEvents
		}
	}
	if l.last > maxEvents {
		from = max(from, l.last-maxEvents)
	}
	out := control.Events{
		Events: make([]control.Event, 0, l.last-from), Cursor: fmt.Sprintf("%s/%d", l.run, l.last), Missed: missed, Changed: l.changed,
	}
	for seq := from + 1; seq <= l.last; seq++ {
		out.Events = append(out.Events, l.ring[seq%maxEvents])
	}
	return out
}

// counters are how often each kind has happened.
func (l *eventLog) counters() []metrics.Counter {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []metrics.Counter
	for kind, n := range l.kinds {
		out = append(out, metrics.Counter{Reason: string(kind), Value: n})
	}
	return out
}
