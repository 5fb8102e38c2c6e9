package dns

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"sync"

	"connectd/pkg/plan"
	"connectd/pkg/wholefile"
)

// ports remembers which port a task's sockets for a resolver had, by task
// name and resolver, so that sockets of the task that are connected to them
// work again after a restart.
type ports struct {
	path string

	mu    sync.Mutex // guards saved, and the file
	saved map[string]map[string]uint16
}

func loadPorts(path string, log *slog.Logger) *ports {
	p := &ports{path: path, saved: make(map[string]map[string]uint16)}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &p.saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("read DNS ports, choosing new ones", "file", path, "error", err)
		p.saved = make(map[string]map[string]uint16)
	}
	return p
}

func (p *ports) get(task string, resolver netip.Addr) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved[task][resolver.String()]
}

// save records the ports of seats and forgets those of tasks that are neither
// seated nor planned.
func (p *ports) save(tasks []*plan.Task, seats []*Seat) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]map[string]uint16)
	for _, t := range tasks {
		if old := p.saved[t.Name]; old != nil {
			next[t.Name] = old
		}
	}
	for _, s := range seats {
		own := make(map[string]uint16, len(s.servers))
		for _, v := range s.servers {
			own[v.resolver.String()] = v.local.Port()
		}
		next[s.task.Name] = own
	}
	if maps.EqualFunc(p.saved, next, maps.Equal) {
		return nil
	}
	text, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := wholefile.Write(p.path, text); err != nil {
		return err
	}
	p.saved = next
	return nil
}
