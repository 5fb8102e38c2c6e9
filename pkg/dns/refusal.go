package dns

import (
	"sync"
	"time"

	"connectd/pkg/lb"
)

const (
	refusalEvery = time.Second // between two of the same name and task
	maxTold      = 64          // names of one task that are told of in that time
)

// Refusal is a query for a name that only namespaces have which the task may
// not use. It went on to the task's own resolver.
type Refusal struct {
	Task      lb.TaskID
	Name      string // the service's
	Namespace string // that has it
}

// told remembers what Params.Refused was told lately.
type told struct {
	mu    sync.Mutex
	names map[string]time.Time
}

func (s *Seat) refuse(m match) {
	if s.r.params.Refused != nil && s.told.first(m.name.DNSName, time.Now()) {
		s.r.params.Refused(Refusal{Task: s.task.ID, Name: m.name.DNSName, Namespace: m.namespace})
	}
}

// first says whether a name is to be told of now.
func (t *told) first(name string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.names[name]; ok && now.Sub(at) < refusalEvery {
		return false
	}
	if len(t.names) >= maxTold {
		for n, at := range t.names {
			if now.Sub(at) >= refusalEvery {
				delete(t.names, n)
			}
		}
		if len(t.names) >= maxTold {
			return false
		}
	}
	if t.names == nil {
		t.names = make(map[string]time.Time)
	}
	t.names[name] = now
	return true
}
